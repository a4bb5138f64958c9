"""The report shows what was measured, needs no other file and escapes hostile names."""

import base64
import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.checkpoint import BUNDLED
from tests.support.checkpoints import tiny_checkpoint
from tests.support.evaluations import METRICS, OOD, PART, random_evaluation, random_predictions
from tests.support.paths import ROOT
from training.data.ood import OOD_SETS
from training.evaluation.result import Evaluation, EvaluationMetrics
from training.evaluation.robustness import CorruptionMetrics
from training.evaluation.summary import SetMetrics
from training.reporting.columns import format_number
from training.reporting.html import figures, report, write_report
from training.reporting.html.tables import interval, percent, settings_table
from training.reporting.plots import plot_risk_coverage

SECTIONS = [
    "rules", "held-out", "confidence", "risk-coverage", "calibration", "ood", "rotation",
    "corruptions", "uncertain", "errors", "sets", "training", "reproduce",
]  # fmt: skip
HOSTILE = "\"><script src=//x.y/z>alert(1)</script><img src=x onerror=a> & ' $\\frac$ {{ 7 * 7 }}"
VOID = {"meta", "img", "br", "hr", "link", "input"}


def without(*names: str) -> EvaluationMetrics:
    return dataclasses.replace(METRICS, **{n: {} if n == "parts" else None for n in names})


class Page(HTMLParser):
    """A page taken apart: its elements, and the text outside of its style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words = ""
        self.style = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def ids(self) -> list[str]:
        return [attrs["id"] for attrs in self.all("section")]


def written(path: Path, what: Evaluation) -> Page:
    write_report(what, path / "report.html")
    return Page((path / "report.html").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "N_EXAMPLES", 2)
        patch.setattr(report, "N_OOD_EXAMPLES", 1)
        return folder / "report.html", written(folder, random_evaluation())


# The page by itself


def test_nothing_is_loaded_and_nothing_is_run(whole: tuple[Path, Page]) -> None:
    path, html = whole
    for tag, attrs in html.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "svg"}
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in {"src", "srcset", "href", "data", "action", "poster", "background"}:
                assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:80])
    assert not re.search(r"url\(|@import|expression|https?:", html.style)
    assert "http:" not in path.read_text()
    assert "https:" not in path.read_text()


def test_the_page_holds_its_figures_as_pictures(whole: tuple[Path, Page]) -> None:
    path, html = whole
    assert len(html.all("img")) == 14
    for attrs in html.all("img"):
        image = Image.open(io.BytesIO(base64.b64decode(attrs["src"].split(",")[1])))
        image.load()
        assert image.width > 1.3 * int(attrs["width"])  # sharp on a fine screen
        assert image.width / image.height == pytest.approx(
            int(attrs["width"]) / int(attrs["height"]), rel=0.01
        )
    assert path.stat().st_size < 1.5e6


def test_few_colours_leave_the_figures_as_they_are() -> None:
    drawn = plot_risk_coverage({"a": (np.array([0.5, 1]), np.array([0.01, 0.1]))}, target=0.02)
    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=figures.DPI, facecolor="white")
    true = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    data = base64.b64decode(figures.embed(drawn).source.split(",")[1])
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(true - shown).max() <= 24
    assert np.abs(true - shown).mean() < 0.1


def test_who_does_not_see_it_can_read_it(whole: tuple[Path, Page]) -> None:
    _, html = whole
    assert html.all("html") == [{"lang": "en"}]
    assert len(html.all("h1")) == len(html.all("main")) == 1
    assert all(len(attrs["alt"]) > 20 for attrs in html.all("img"))
    assert len(html.all("figcaption")) == len(html.all("figure")) == len(html.all("img"))
    assert len(html.all("caption")) == len(html.all("table")) == len(html.all("thead")) > 5
    assert {attrs.get("scope") for attrs in html.all("th")} == {"col", "row"}
    ids = [attrs["id"] for _, attrs in html.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"] for attrs in html.all("a")} == {f"#{name}" for name in html.ids()}


def test_every_row_of_a_table_is_as_long_as_its_head(whole: tuple[Path, Page]) -> None:
    for table in re.findall(r"<table>.*?</table>", whole[0].read_text(), re.DOTALL):
        lengths = {len(re.findall("<t[hd]", row)) for row in table.split("<tr>")[1:]}
        assert len(lengths) == 1, table


# What it says


def test_sections_and_their_links_stand_in_order(whole: tuple[Path, Page]) -> None:
    assert whole[1].ids() == SECTIONS


@pytest.mark.parametrize(
    "words",
    [
        "Evaluation of the model “digits”", "Version 0123456789ab, 20 posterior draws",
        "0.50\u00a0%", "0.37\u00a0% to 0.65\u00a0%", "0.0147",  # error rate, its interval, NLL
        "2 errors among 38 accepted", "0.000120",
        "1 of 36", "2.778\u00a0%",  # errors at a coverage of 90 %
        "1,234", "0.0006", "0.0028", "the 90 % interval", "87.6\u00a0%", "below 0.99",
        "54.0\u00a0%",
        "Not found, and so left out: letters.", "3.10\u00a0%", "83.00\u00a0%", "77.00\u00a0%",
        "0.9911", "2.22\u00a0% pass",  # AUROC and what passes
        "-45°", "motion blur",
        "Of 2 errors 2 are accepted",
        "98.70\u00a0%", "25.00\u00a0%", "1,028",  # sets by class
        "f" * 64, "a" * 64, "47,000", "20260101", "9.8.7", "rotation deg",
        "python -m training.evaluate",
    ],
)  # fmt: skip
def test_what_was_measured_is_on_the_page(whole: tuple[Path, Page], words: str) -> None:
    assert words in whole[1].words


def test_the_rules_state_their_guarantees(whole: tuple[Path, Page]) -> None:
    checkpoint = random_evaluation().checkpoint
    assert checkpoint.selective.guarantee() in whole[1].words
    assert checkpoint.conformal.guarantee() in whole[1].words
    assert "predictive entropy, is at most 2 " in whole[1].words
    assert "does not hold for these metrics" not in whole[1].words


@pytest.mark.usefixtures("no_figures")
def test_it_says_so_if_the_guarantee_does_not_hold(tmp_path: Path) -> None:
    other = written(tmp_path, random_evaluation(n_draws=5)).words
    assert "This report uses 5 draws, but the rule was calibrated with 20" in other
    assert "python -m training.evaluate --draws 5" in other
    checkpoint = dataclasses.replace(tiny_checkpoint(), digest="of another installation")
    assert (
        "draws other networks" in written(tmp_path, random_evaluation(checkpoint=checkpoint)).words
    )
    rule = dataclasses.replace(tiny_checkpoint().selective, threshold=-1.0)
    checkpoint = dataclasses.replace(tiny_checkpoint(), selective=rule)
    nothing = written(tmp_path, random_evaluation(checkpoint=checkpoint)).words
    assert rule.guarantee() in nothing
    assert "is at most -1" not in nothing


def test_no_path_of_this_machine_is_on_the_page(whole: tuple[Path, Page]) -> None:
    path, html = whole
    for secret in ("somebody", str(path.parent), str(ROOT), str(BUNDLED)):
        assert secret not in html.words


MISSING = {
    "no rotation": ({"metrics": without("rotation")}, {"rotation"}),
    "no corruptions": ({"metrics": without("corruptions")}, {"corruptions"}),
    "no ood": ({"ood": {}, "metrics": without("ood")}, {"ood"}),
    "no training": ({"checkpoint": dataclasses.replace(tiny_checkpoint(), training={})},
                    {"training"}),
    "no sets": ({"metrics": without("sets_by_class")}, {"sets"}),
    "no predictions": ({"parts": {}}, {"confidence", "uncertain", "errors"}),
    "no parts": ({"parts": {}, "metrics": without("parts", "intervals", "sets_by_class")},
                 {"held-out", "confidence", "risk-coverage", "calibration", "uncertain", "errors",
                  "sets"}),
    "nothing": ({"parts": {}, "ood": {}, "metrics": EvaluationMetrics({}),
                 "checkpoint": dataclasses.replace(tiny_checkpoint(), training={})},
                set(SECTIONS) - {"rules", "reproduce"}),
}  # fmt: skip


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(("changes", "missing"), MISSING.values(), ids=MISSING)
def test_a_section_without_data_is_left_out_with_its_link(
    tmp_path: Path, changes: dict[str, Any], missing: set[str]
) -> None:
    html = written(tmp_path, random_evaluation(**changes))
    assert html.ids() == [name for name in SECTIONS if name not in missing]
    assert {attrs["href"] for attrs in html.all("a")} == {f"#{name}" for name in html.ids()}


@pytest.mark.usefixtures("no_figures")
def test_metrics_that_are_no_numbers_are_dashes(tmp_path: Path) -> None:
    metrics = dataclasses.replace(
        METRICS,
        parts={"test": dataclasses.replace(PART, error=math.nan, nll=math.inf)},
        ood={"clothes": dataclasses.replace(OOD, accepted=math.nan, auroc={})},
    )
    html = written(tmp_path, random_evaluation(metrics=metrics))
    assert html.ids() == SECTIONS
    assert not re.search(r"\b(nan|inf|None)\b", html.words.replace("None of these", ""))
    assert "–" in html.words


@pytest.mark.usefixtures("no_figures")
def test_no_metrics_of_an_output_that_is_not_there(tmp_path: Path) -> None:
    scores = {"not_a_digit": 0.5, "one_minus_joint_probability": 0.75, "predictive_entropy": 0.8}
    for share, there in ((0.0, False), (0.1, True)):
        metrics = dataclasses.replace(
            METRICS,
            parts={"test": dataclasses.replace(PART, not_a_digit=share)},
            ood={"clothes": dataclasses.replace(OOD, not_a_digit=share, auroc=scores)},
        )
        words = written(tmp_path, random_evaluation(metrics=metrics)).words
        assert ("not a digit, mean" in words) is there
        assert ("probability of not a digit" in words) is there
        assert ("0.7500" in words) is there
        assert "0.8000" in words


@pytest.mark.usefixtures("no_figures")
def test_no_errors_are_said_in_words(tmp_path: Path) -> None:
    part = random_predictions("test")
    right = dataclasses.replace(part, labels=part.summary.probability.argmax(axis=1))
    html = written(tmp_path, random_evaluation(parts={"test": right}))
    assert "None of the 40 predictions is wrong." in html.words


@pytest.mark.usefixtures("no_figures")
def test_a_network_with_a_not_a_digit_output_gets_figures_of_it(tmp_path: Path) -> None:
    parts = {"test": random_predictions("test", not_a_digit=True)}
    ood = {"clothes": random_predictions("clothes", 20, digits=False, not_a_digit=True)}
    with_output = written(tmp_path, random_evaluation(parts=parts, ood=ood)).all("img")
    without_output = written(tmp_path, random_evaluation()).all("img")
    assert any("not being a digit" in image["alt"] for image in with_output)
    assert any("a digit of the most probable class" in image["alt"] for image in with_output)
    for image in without_output:
        assert "being a digit" not in image["alt"]
        assert "a digit of" not in image["alt"]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("known", OOD_SETS, ids=lambda known: known.name)
def test_each_out_of_distribution_set_is_described(tmp_path: Path, known: Any) -> None:
    ood = {known.name: random_predictions(known.name, 20, digits=False)}
    words = written(tmp_path, random_evaluation(ood=ood)).words
    for text in (known.name, known.description, known.source, known.license):
        assert text in words


# Hostile names


@pytest.mark.usefixtures("no_figures")
def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    checkpoint = random_evaluation().checkpoint
    config = dataclasses.replace(
        checkpoint.posterior.config, labels=(HOSTILE, *(f"{HOSTILE}{i}" for i in range(9)))
    )
    score: Any = HOSTILE
    hostile = random_evaluation(
        checkpoint=dataclasses.replace(
            checkpoint,
            name=HOSTILE,
            posterior=dataclasses.replace(checkpoint.posterior, config=config),
            selective=dataclasses.replace(checkpoint.selective, population=HOSTILE),
            training={
                "dataset": HOSTILE,
                "fit": {HOSTILE: HOSTILE},
                "data": {HOSTILE: {"n": 1, "sha256": HOSTILE}},
                "versions": {HOSTILE: HOSTILE},
                "epochs": [{"epoch": 1, HOSTILE: 1.0}],
            },
        ),
        version=HOSTILE,
        parts={HOSTILE: random_predictions(HOSTILE)},
        ood={HOSTILE: random_predictions(HOSTILE, 20, digits=False)},
        metrics=EvaluationMetrics(
            parts={HOSTILE: PART},
            sets_by_class={HOSTILE: SetMetrics(1, 1.0, 1.0, 0.0)},
            ood={HOSTILE: dataclasses.replace(OOD, auroc={score: 0.5})},
            ood_missing=[HOSTILE],
            rotation=METRICS.rotation,
            corruptions={HOSTILE: CorruptionMetrics(10, 0.1, 0.4, 0.5, 0)},
            intervals=METRICS.intervals,
        ),
    )
    html = written(tmp_path, hostile)
    assert html.ids() == SECTIONS
    assert html.all("script") == []
    assert all(a["src"].startswith("data:image/png;base64,") for a in html.all("img"))
    assert not any(name.startswith("on") for _, attrs in html.elements for name in attrs)
    assert html.words.count(HOSTILE) > 20
    assert json.loads((tmp_path / "report.json").read_text()) == hostile.metrics.to_dict()


def test_figures_with_hostile_names_can_be_drawn() -> None:
    parts, ood = random_predictions(HOSTILE), random_predictions(HOSTILE, 20, digits=False)
    drawn = figures.ReportFigures(random_evaluation(parts={HOSTILE: parts}, ood={HOSTILE: ood}))
    for figure in (drawn.risk_coverage(), drawn.top_probability()):
        assert figure.source.startswith("data:image/png;base64,")


# The files


def test_the_json_holds_the_metrics(whole: tuple[Path, Page]) -> None:
    found = json.loads(whole[0].with_suffix(".json").read_text())
    assert found == METRICS.to_dict()
    assert found["foreign"]["clothes"]["auroc"] == {"predictive_entropy": 0.9911}
    assert found["foreign_missing"] == ["letters"]
    assert found["parts"]["test"]["errors_at_coverage"] == {"0.90": {"n": 36, "errors": 1}}
    assert found["parts"]["test"]["intervals"] == {"error": [0.0037, 0.0065]}
    assert "intervals" not in found["parts"]["imitated"]
    assert found["intervals"]["another"]["unsure"] == {"n": 56, "held": 0.54}


@pytest.mark.usefixtures("no_figures")
def test_json_has_no_word_for_what_is_not_a_number(tmp_path: Path) -> None:
    part = dataclasses.replace(PART, nll=math.nan, intervals={"nll": (0.5, -math.inf)})
    metrics = dataclasses.replace(METRICS, parts={"test": part})
    written(tmp_path, random_evaluation(metrics=metrics))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "report.json").read_text()
    found = json.loads(text, parse_constant=refuse)["parts"]["test"]
    assert (found["nll"], found["intervals"], found["error"]) == (None, {"nll": [0.5, None]}, 0.005)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("suffix", [".html", ".json"])
def test_a_file_is_whole_or_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    path.with_suffix(".json").write_text("old")
    rename = Path.replace

    def fail(source: Path, target: Path) -> Path:
        if target.suffix == suffix:
            raise OSError("the disk is full")
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_report(random_evaluation(), path)
    assert path.with_suffix(suffix).read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.usefixtures("no_figures")
def test_nothing_is_written_of_what_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = EvaluationMetrics({"test": dataclasses.replace(PART, error=object())})
    with pytest.raises(TypeError):
        write_report(random_evaluation(metrics=metrics), tmp_path / "report.html")

    def fail(_: Evaluation, __: object) -> str:
        raise ValueError("no page")

    monkeypatch.setattr(report, "_render", fail)
    with pytest.raises(ValueError, match="no page"):
        write_report(random_evaluation(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_page_does_not_take_the_place_of_its_figures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.html"):
        write_report(random_evaluation(), tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


# What follows from the predictions


def test_examples_and_operating_point_by_hand() -> None:
    part, whole = random_predictions("test"), random_evaluation()
    confidence = part.summary.joint_probability
    most_confident = [0, 1] if confidence[0] > confidence[1] else [1, 0]
    assert whole.most_confident_errors(part, 12).tolist() == most_confident
    assert whole.most_confident_errors(part, 1).tolist() == most_confident[:1]
    assert whole.most_confident(part, 1).tolist() == [int(confidence.argmax())]
    entropies = part.summary.predictive_entropy
    assert (
        whole.most_uncertain(part, 3).tolist() == sorted(range(40), key=lambda i: -entropies[i])[:3]
    )
    assert whole.accepted(part).tolist() == [True] * 39 + [False]  # the last is flagged
    assert (whole.n_errors(part), whole.n_errors_accepted(part)) == (2, 2)
    assert whole.operating_point(part) == (39 / 40, 2 / 39)


def test_flagged_images_rank_last_however_certain() -> None:
    part = dataclasses.replace(random_predictions("test"), flagged=np.arange(40) == 0)
    assert part.summary.predictive_entropy[0] < part.summary.predictive_entropy.max()
    coverage, risk = random_evaluation().curve(part)
    # So the rule, which accepts all others, lies on the curve.
    point = random_evaluation().operating_point(part)
    assert (coverage[-2], risk[-2]) == point == (39 / 40, 1 / 39)
    assert risk[-1] == 2 / 40


def test_figures_show_the_test_part_if_it_was_evaluated() -> None:
    assert random_evaluation().main_name == "test"
    parts = {"imitated": random_predictions("a"), "validation": random_predictions("b")}
    assert random_evaluation(parts=parts).main_name == "validation"
    assert random_evaluation(parts={}).main is None
    assert random_evaluation(parts={}).main_name == ""


def test_numbers_and_settings_as_text() -> None:
    assert format_number(1234, "{:,}") == "1,234"
    assert [format_number(value, "{}") for value in (None, math.nan, math.inf)] == ["–"] * 3
    assert percent(0.1234) == "12.34 %"
    assert interval([0.1, 0.2], "{:.1f}") == "0.1 to 0.2"
    assert interval(None, "{}") == ""
    settings = {"a_b": {"c": [1.23456, None], "d": True}, "seed": 20260101, "n": 47000}
    assert settings_table(settings).rows == [
        ("a b: c", ["1.235; –"]),
        ("a b: d", ["yes"]),
        ("seed", ["20260101"]),
        ("n", ["47,000"]),
    ]
