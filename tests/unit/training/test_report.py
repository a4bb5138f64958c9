"""The report says what was measured, needs nothing from elsewhere and survives hostile names."""

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

from model import summarise
from model.checkpoint import BUNDLED
from model.uncertainty import Floats
from tests.support.checkpoints import tiny_checkpoint
from tests.support.paths import ROOT
from training.evaluation.predictions import Answers
from training.reporting import html as report
from training.reporting.html import Evaluation, page, write_report
from training.reporting.html import answers as report_answers
from training.reporting.html import beyond as report_beyond
from training.reporting.html import certainty as report_certainty
from training.reporting.html.words import flat, interval, number, percent

SECTIONS = [
    "rules", "held-out", "how-sure", "accept", "calibration", "foreign", "turned", "corrupted",
    "uncertain", "wrong", "sets", "trained", "again",
]  # fmt: skip
HOSTILE = "\"><script src=//x.y/z>alert(1)</script><img src=x onerror=a> & ' $\\frac$"
VOID = {"meta", "img", "br", "hr", "link", "input"}
PART = {
    "n": 40, "error": 0.005, "nll": 0.0147, "brier_score": 0.0075, "calibration_error": 0.0011,
    "adaptive_calibration_error": 0.0009, "predictive_entropy": 0.0157,
    "mutual_information": 0.0024, "accepted": 0.95, "errors_accepted": 2, "set_coverage": 0.9995,
    "set_size": 1.041, "aurc": 0.00012, "intervals": {"error": [0.0037, 0.0065]},
    "errors_at_coverage": {"0.90": {"n": 36, "errors": 1}},
    "sets_by_class": {"0": {"coverage": 0.987, "size": 1.5, "larger_than_one": 0.25}},
}  # fmt: skip
SET = {
    "n": 20, "accepted": 0.031, "flagged": 0.12, "unlike_training": 0.83,
    "predictive_entropy": 1.2, "mutual_information": 0.3, "not_a_digit": 0.77,
    "auroc": {"predictive_entropy": 0.9911}, "fpr_at_95_tpr": {"predictive_entropy": 0.0222},
}  # fmt: skip
FIGURES: dict[str, Any] = {
    "parts": {"test": PART, "imitated": {"n": 40, "error": 0.1}},
    "foreign": {"clothes": SET},
    "foreign_missing": ["letters"],
    "rotation": [{"angle_deg": a, "error": 0.1, "accepted": 0.8} for a in (-45, 0, 45)],
    "corruptions": {"motion_blur": {"n": 50, "error": 0.2, "accepted": 0.5, "errors_accepted": 1}},
    "intervals": {
        "level": 0.9,
        "monte_carlo": {"all": {"n": 1234, "probability": 0.00061, "lower": 0.0028}},
        "another": {"all": {"n": 1234, "held": 0.8765}, "unsure": {"n": 56, "held": 0.54}},
        "refitted": {"inside": 0.9123},
    },
}
TRAINING = {
    "dataset": "mnist",
    "created": "2026-01-02T03:04:05+00:00",
    "epochs": [{"epoch": 1, "nll": 0.9, "kl": 7e4}, {"epoch": 2, "nll": 0.1, "kl": 6e4}],
    "fit": {"learning_rate": 0.004, "augmentation": {"rotation_deg": 12.0}},
    "data": {
        "fit": {"n": 47000, "sha256": "f" * 64},
        "test_sha256": "a" * 64,
        "split_seed": 20260101,
    },
    "versions": {"torch": "9.8.7"},
    "output": "/home/somebody/secret/digits.safetensors",
}


def summary_of(logits: Floats, *, not_a_digit: bool) -> Any:
    """A summary of 20 draws around these logits (N, 10)."""
    rng = np.random.default_rng(1)
    draws = np.exp(logits + rng.normal(0, 0.5, (20, *logits.shape)))
    draws /= draws.sum(axis=2, keepdims=True)
    odd = rng.uniform(0, 1, draws.shape[:2]) if not_a_digit else None
    return summarise(draws, 0.95, odd)


def some_answers(name: str, n: int = 40, *, digits: bool = True, knows: bool = False) -> Answers:
    """Answers of which the first two are wrong, and of which the door flags the last."""
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 10
    logits = rng.normal(0, 1, (n, 10))
    logits[np.arange(n), labels] += 6
    logits[[0, 1], [7, 8]] += 9
    return Answers(
        name=name,
        pixels=rng.integers(0, 256, (n, 28, 28)).astype(np.uint8),
        labels=labels if digits else None,
        summary=summary_of(logits, not_a_digit=knows),
        flagged=np.arange(n) == n - 1,
    )


def evaluation(**changes: Any) -> Evaluation:
    whole = Evaluation(
        checkpoint=dataclasses.replace(tiny_checkpoint(), training=TRAINING),
        version="0123456789ab",
        n_draws=20,
        parts={"test": some_answers("test"), "imitated": some_answers("imitated")},
        foreign={"clothes": some_answers("clothes", 20, digits=False)},
        figures=FIGURES,
    )
    return dataclasses.replace(whole, **changes)


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in FIGURES.items() if key not in keys}


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not drawn, which takes nearly all of a report's time."""
    monkeypatch.setattr(page, "_png", lambda _: (b"png", 900, 400))
    monkeypatch.setattr(report_answers, "_N_EXAMPLES", 1)
    monkeypatch.setattr(report_beyond, "_N_EXAMPLES", 1)


def written(path: Path, what: Evaluation) -> Page:
    write_report(what, path / "report.html")
    return Page((path / "report.html").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    folder = tmp_path_factory.mktemp("report")
    return folder / "report.html", written(folder, evaluation())


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
    drawn = report_certainty.plot_risk_coverage(
        {"a": (np.array([0.5, 1]), np.array([0.01, 0.1]))}, target=0.02
    )
    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=page._DPI, facecolor="white")
    true = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    data, _, _ = page._png(drawn)
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
        "0.50\u00a0%", "0.37\u00a0% to 0.65\u00a0%", "0.0147",  # error, its interval, NLL
        "2 of 38 accepted answers wrong", "0.000120",
        "1 of 36", "2.778\u00a0%",  # errors at a coverage of 90 %
        "1,234", "0.0006", "0.0028", "the 90\u00a0% interval", "87.6 %", "below 0.99", "54.0 %",
        "0.9123", "refitted: inside",  # intervals
        "Not found, and so not asked: letters.", "3.10\u00a0%", "83.00\u00a0%", "77.00\u00a0%",
        "0.9911", "2.22\u00a0% pass",  # AUROC and what passes
        "-45°", "motion blur",
        "Of all 2 wrong answers 2 were accepted",
        "98.70\u00a0%", "25.00\u00a0%",  # sets by class
        "f" * 64, "a" * 64, "47,000", "20260101", "9.8.7", "rotation deg",
        "python -m training.evaluate",
    ],
)  # fmt: skip
def test_what_was_measured_is_on_the_page(whole: tuple[Path, Page], words: str) -> None:
    assert words in whole[1].words


def test_the_rules_promise_in_their_own_words(whole: tuple[Path, Page]) -> None:
    checkpoint = evaluation().checkpoint
    assert checkpoint.selective.guarantee() in whole[1].words
    assert checkpoint.conformal.guarantee() in whole[1].words
    assert "predictive entropy, is at most 2 " in whole[1].words
    assert "does not hold for these figures" not in whole[1].words


@pytest.mark.usefixtures("quick")
def test_it_says_so_where_the_promise_does_not_hold(tmp_path: Path) -> None:
    other = written(tmp_path, evaluation(n_draws=5)).words
    assert "This report used 5 draws, the rule was calibrated with 20" in other
    assert "python -m training.evaluate --draws 5" in other
    checkpoint = dataclasses.replace(tiny_checkpoint(), digest="of another installation")
    assert "draws other networks" in written(tmp_path, evaluation(checkpoint=checkpoint)).words
    rule = dataclasses.replace(tiny_checkpoint().selective, threshold=-1.0)
    checkpoint = dataclasses.replace(tiny_checkpoint(), selective=rule)
    nothing = written(tmp_path, evaluation(checkpoint=checkpoint)).words
    assert "Nothing is accepted" in nothing
    assert "is at most -1" not in nothing


def test_no_path_of_this_machine_is_on_the_page(whole: tuple[Path, Page]) -> None:
    path, html = whole
    for secret in ("somebody", str(path.parent), str(ROOT), str(BUNDLED)):
        assert secret not in html.words


MISSING = {
    "no rotation": ({"figures": without("rotation")}, {"turned"}),
    "no corruptions": ({"figures": without("corruptions")}, {"corrupted"}),
    "no foreign": ({"foreign": {}, "figures": without("foreign")}, {"foreign"}),
    "no training": ({"checkpoint": dataclasses.replace(tiny_checkpoint(), training={})},
                    {"trained"}),
    "no sets": ({"figures": {**FIGURES, "parts": {"test": {"n": 40, "error": 0.1}}}}, {"sets"}),
    "no answers": ({"parts": {}},
                   {"how-sure", "uncertain", "wrong"}),
    "no parts": ({"parts": {}, "figures": without("parts", "intervals")},
                 {"held-out", "how-sure", "accept", "calibration", "uncertain", "wrong", "sets"}),
    "nothing": ({"parts": {}, "foreign": {}, "figures": {},
                 "checkpoint": dataclasses.replace(tiny_checkpoint(), training={})},
                set(SECTIONS) - {"rules", "again"}),
}  # fmt: skip


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("changes", "missing"), MISSING.values(), ids=MISSING)
def test_a_section_without_data_is_left_out_with_its_link(
    tmp_path: Path, changes: dict[str, Any], missing: set[str]
) -> None:
    html = written(tmp_path, evaluation(**changes))
    assert html.ids() == [name for name in SECTIONS if name not in missing]
    assert {attrs["href"] for attrs in html.all("a")} == {f"#{name}" for name in html.ids()}


@pytest.mark.usefixtures("quick")
def test_single_figures_may_be_missing_too(tmp_path: Path) -> None:
    figures = {
        "parts": {"test": {"n": 40, "error": None, "nll": math.nan}},
        "foreign": {"clothes": {"n": 20, "auroc": None}},
        "rotation": [{"angle_deg": 0}],
        "corruptions": {"fog": {"n": 10}},
    }
    html = written(tmp_path, evaluation(figures=figures))
    assert html.ids() == [name for name in SECTIONS if name != "sets"]
    assert "nan" not in html.words
    assert "None" not in html.words.replace("None of these", "")


@pytest.mark.usefixtures("quick")
def test_sets_by_class_may_stand_beside_the_parts(tmp_path: Path) -> None:
    part = {key: value for key, value in PART.items() if key != "sets_by_class"}
    figures = {"parts": {"test": part}, "sets_by_class": {"7": {"n": 1028, "coverage": 0.9876}}}
    html = written(tmp_path, evaluation(figures=figures))
    assert "sets" in html.ids()
    assert "1,028" in html.words
    assert "98.76\u00a0%" in html.words


@pytest.mark.usefixtures("quick")
def test_no_figures_of_an_output_that_is_not_there(tmp_path: Path) -> None:
    scores = {"not_a_digit": 0.5, "one_minus_joint_probability": 0.75, "predictive_entropy": 0.8}
    for share, there in ((0.0, False), (0.1, True)):
        figures = {
            "parts": {"test": {**PART, "not_a_digit": share}},
            "foreign": {"clothes": {**SET, "not_a_digit": share, "auroc": scores}},
        }
        words = written(tmp_path, evaluation(figures=figures)).words
        assert ("“no digit”, mean" in words) is there
        assert ("probability of being no digit" in words) is there
        assert ("0.7500" in words) is there
        assert "0.8000" in words


@pytest.mark.usefixtures("quick")
def test_no_wrong_answer_is_said_in_words(tmp_path: Path) -> None:
    part = some_answers("test")
    right = dataclasses.replace(part, labels=part.summary.probability.argmax(axis=1))
    html = written(tmp_path, evaluation(parts={"test": right}))
    assert "Of the 40 answers none was wrong." in html.words


@pytest.mark.usefixtures("quick")
def test_a_network_that_knows_what_is_no_digit_gets_figures_of_it(tmp_path: Path) -> None:
    parts = {"test": some_answers("test", knows=True)}
    foreign = {"clothes": some_answers("clothes", 20, digits=False, knows=True)}
    knowing = evaluation(parts=parts, foreign=foreign)
    alts = [a["alt"] for a in written(tmp_path, knowing).all("img")]
    plain = [a["alt"] for a in written(tmp_path, evaluation()).all("img")]
    assert any("being no digit" in alt for alt in alts)
    assert any("it is a digit, and it is this one" in alt for alt in alts)
    assert not any("being no digit" in alt or "it is this one" in alt for alt in plain)


# Hostile names


@pytest.mark.usefixtures("quick")
def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    checkpoint = evaluation().checkpoint
    config = dataclasses.replace(
        checkpoint.posterior.config, labels=(HOSTILE, *(f"{HOSTILE}{i}" for i in range(9)))
    )
    hostile = evaluation(
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
        parts={HOSTILE: some_answers(HOSTILE)},
        foreign={HOSTILE: some_answers(HOSTILE, 20, digits=False)},
        figures={
            "parts": {HOSTILE: {**PART, "sets_by_class": {HOSTILE: {"size": 1.0}}}},
            "foreign": {HOSTILE: {**SET, "auroc": {HOSTILE: 0.5}}},
            "foreign_missing": [HOSTILE],
            "rotation": FIGURES["rotation"],
            "corruptions": {HOSTILE: {"error": 0.1, "accepted": 0.5}},
            "intervals": {HOSTILE: {HOSTILE: [HOSTILE]}},
        },
    )
    html = written(tmp_path, hostile)
    assert html.ids() == SECTIONS
    assert html.all("script") == []
    assert all(a["src"].startswith("data:image/png;base64,") for a in html.all("img"))
    assert not any(name.startswith("on") for _, attrs in html.elements for name in attrs)
    assert html.words.count(HOSTILE) > 20
    assert json.loads((tmp_path / "report.json").read_text()) == hostile.figures


def test_figures_with_hostile_names_can_be_drawn() -> None:
    parts, foreign = some_answers(HOSTILE), some_answers(HOSTILE, 20, digits=False)
    hostile = evaluation(parts={HOSTILE: parts}, foreign={HOSTILE: foreign})
    assert "<img" in report_certainty.when_to_accept(hostile)


# The files


def test_the_json_is_the_figures(whole: tuple[Path, Page]) -> None:
    assert json.loads(whole[0].with_suffix(".json").read_text()) == FIGURES


@pytest.mark.usefixtures("quick")
def test_json_has_no_word_for_what_is_not_a_number(tmp_path: Path) -> None:
    figures = {"a": [math.nan, {"b": -math.inf}], "c": (1, 0.5)}
    written(tmp_path, evaluation(figures=figures))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "report.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {"a": [None, {"b": None}], "c": [1, 0.5]}


@pytest.mark.usefixtures("quick")
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
        write_report(evaluation(), path)
    assert path.with_suffix(suffix).read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.usefixtures("quick")
def test_nothing_is_written_of_what_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TypeError):
        write_report(evaluation(figures={"parts": {}, "a": object()}), tmp_path / "report.html")

    def fail(_: Evaluation, __: object) -> str:
        raise ValueError("no page")

    monkeypatch.setattr(report, "_report", fail)
    with pytest.raises(ValueError, match="no page"):
        write_report(evaluation(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_page_does_not_take_the_place_of_its_figures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.html"):
        write_report(evaluation(), tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


# What follows from the answers


def test_examples_and_operating_point_by_hand() -> None:
    part, whole = some_answers("test"), evaluation()
    certainty = part.summary.joint_probability
    surest = [0, 1] if certainty[0] > certainty[1] else [1, 0]
    assert whole.surest_wrong(part, 12).tolist() == surest
    assert whole.surest_wrong(part, 1).tolist() == surest[:1]
    entropies = part.summary.predictive_entropy
    assert (
        whole.most_uncertain(part, 3).tolist() == sorted(range(40), key=lambda i: -entropies[i])[:3]
    )
    assert whole.accepted(part).tolist() == [True] * 39 + [False]  # the last is flagged
    assert whole.operating_point(part) == (39 / 40, 2 / 39)


def test_what_the_door_flags_is_answered_last_of_all_however_certain() -> None:
    part = dataclasses.replace(some_answers("test"), flagged=np.arange(40) == 0)
    assert part.summary.predictive_entropy[0] < part.summary.predictive_entropy.max()
    coverage, risk = evaluation().curve(part)
    # So the rule, which accepts all others, lies on the curve.
    assert (coverage[-2], risk[-2]) == evaluation().operating_point(part) == (39 / 40, 1 / 39)
    assert risk[-1] == 2 / 40


def test_the_test_pictures_are_drawn_if_they_were_asked() -> None:
    assert evaluation().main_name == "test"
    only = evaluation(parts={"imitated": some_answers("a"), "validation": some_answers("b")})
    assert only.main_name == "validation"
    assert evaluation(parts={}).main is None
    assert evaluation(parts={}).main_name == ""


def test_figures_in_words() -> None:
    assert number(1234, "{:,}") == "1,234"
    assert [number(value, "{}") for value in (None, math.nan, "x", True)] == ["–"] * 4
    assert percent(0.1234) == "12.34\u00a0%"
    assert interval([0.1, 0.2], "{:.1f}") == "0.1 to 0.2"
    assert [interval(value, "{}") for value in (None, "ab", [1])] == [""] * 3
    assert flat({"a_b": {"c": [1.23456, None], "d": True}, "seed": 20260101, "n": 47000}) == [
        ("a b: c", ["1.235; –"]),
        ("a b: d", ["yes"]),
        ("seed", ["20260101"]),
        ("n", ["47,000"]),
    ]
