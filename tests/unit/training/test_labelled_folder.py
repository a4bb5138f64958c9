"""`python -m training.evaluate --images DIR`: a labelled folder, by kind, and a contact sheet."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from model import load
from tests.support.images import drawn_seven
from training import evaluate
from training.data.labelled_folder import (
    LabelledImage,
    LabelledPrediction,
    ManifestError,
    format_by_kind,
    predict_images,
    read_manifest,
)
from training.reporting.contact_sheet import contact_sheet

COLUMNS = ("file", "label", "kind", "source")


def manifest(folder: Path, *rows: tuple[str, str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows((*row, "us") for row in rows)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A seven, a seven said to be a 3, a blank, a letter, a damaged file."""
    (tmp_path / "in").mkdir()
    drawn_seven().save(tmp_path / "in" / "seven.png")
    drawn_seven(40).save(tmp_path / "three.jpg")
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    letter = Image.new("L", (200, 200), 240)
    pen = ImageDraw.Draw(letter)
    pen.line([(40, 160), (100, 30), (160, 160)], fill=10, width=14)
    pen.line([(60, 110), (140, 110)], fill=10, width=14)
    letter.save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    return manifest(
        tmp_path,
        ("in/seven.png", "7", "paint"),
        ("three.jpg", "3", "paint"),
        ("blank.png", "0", "scan"),
        ("a.png", "letter A", "letter"),
        ("bad.png", "5", "scan"),
    )


def test_the_command_prints_each_kind_and_writes_a_sheet(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "out" / "sheet.png"
    code = evaluate.main(
        ["--images", str(folder), "--sheet", str(sheet), "--draws", "10", "--device", "cpu"]
    )
    printed = capsys.readouterr().out
    assert code == 0
    rows = {
        line[: line.index("  ")].strip(): re.split(r"\s{2,}", line.strip())[1:]
        for line in printed.splitlines()
        if "  " in line
    }
    assert rows["kind"] == ["images", "correct", "accuracy", "accepted", "share", "accepted errors"]
    assert rows["paint"][:3] == ["2", "1", "50.0 %"]
    assert rows["scan"][0] == "2"
    assert rows["scan"][3:] == ["0", "0.0 %", "0"]
    assert rows["all digits"][0] == "4"
    accepted = int(rows["no digit: letter"][1])
    assert rows["no digit: letter"] == [
        "1",
        str(accepted),
        f"{100 * accepted:.1f} %",
        str(accepted),
    ]
    assert "bad.png: the picture" in printed
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda _: None, "manifest.csv: cannot be read"),
        (lambda f: (f / "manifest.csv").write_text("file,label,kind\n"), "at least one row"),
        (lambda f: (f / "manifest.csv").write_text("file,label\na,1\n"), "missing: kind"),
        (lambda f: (f / "manifest.csv").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda f: manifest(f, ("absent.png", "1", "x")), "line 2: no file 'absent.png'"),
        (lambda f: manifest(f, ("../secret.png", "1", "x")), "no file '../secret.png' in"),
        (lambda f: manifest(f, ("/etc/hostname", "1", "x")), "no file '/etc/hostname' in"),
        (lambda f: manifest(f, ("", "1", "x")), "no file ''"),
        (lambda f: manifest(f, ("a" * 5000, "1", "x")), "no file 'aaaa"),
        (lambda f: manifest(f, ("pictures.txt", "", "x")), "line 2: no label"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: object,
    message: str,
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "pictures.txt").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    prepare(folder)  # type: ignore[operator]
    with pytest.raises(ManifestError, match=re.escape(message)):
        read_manifest(folder)
    assert evaluate.main(["--images", str(folder)]) == 2
    assert message in capsys.readouterr().err


def test_answers_are_those_of_the_classifier(folder: Path) -> None:
    classifier = load(n_draws=10, device="cpu")
    results = predict_images(classifier, read_manifest(folder), 10)
    alone = classifier.predict(folder / "in" / "seven.png", level=0.5)
    assert results[0].prediction is not None
    assert results[0].prediction.classes[7].probability == alone.classes[7].probability
    assert [result.is_digit for result in results] == [True, True, True, False, True]
    assert results[4].prediction is None
    assert not results[4].accepted


def entry(label: str = "1", kind: str = "k") -> LabelledImage:
    return LabelledImage(Path("nowhere.png"), label, kind)


def test_the_table_counts_by_hand(folder: Path) -> None:
    classifier = load(n_draws=10, device="cpu")
    seven = predict_images(classifier, read_manifest(folder), 10)[0].prediction
    assert seven is not None
    assert seven.decision == "accept"
    results = [
        LabelledPrediction(entry("7", "a"), seven),
        LabelledPrediction(entry("1", "a"), seven),
        LabelledPrediction(entry("1", "b"), None, "damaged"),
        LabelledPrediction(entry("letter", "c"), seven, is_digit=False),
    ]
    lines = [re.split(r"\s{2,}", line.strip()) for line in format_by_kind(results).splitlines()[1:]]
    assert lines == [
        ["a", "2", "1", "50.0 %", "2", "100.0 %", "1"],
        ["b", "1", "0", "0.0 %", "0", "0.0 %", "0"],
        ["all digits", "3", "1", "33.3 %", "2", "66.7 %", "1"],
        ["no digit: c", "1", "1", "100.0 %", "1"],
    ]


def test_the_sheet_shows_what_is_wrong_or_rejected_and_nothing_else(folder: Path) -> None:
    classifier = load(n_draws=10, device="cpu")
    results = predict_images(classifier, read_manifest(folder), 10)
    right = [result for result in results if result.accepted and result.correct]
    assert right[0].prediction is not None
    rejected = replace(right[0].prediction, decision="review", reasons=("uncertain",))
    results.append(replace(right[0], prediction=rejected))
    whole, without = contact_sheet(results), contact_sheet([r for r in results if r not in right])
    assert whole.size == without.size
    below = np.asarray(whole)[40:]
    np.testing.assert_array_equal(below, np.asarray(without)[40:])  # only the heading differs
    colours = {tuple(colour) for colour in np.asarray(whole).reshape(-1, 3)}
    assert {(192, 28, 40), (154, 91, 0)} <= colours
    blank = {tuple(colour) for colour in np.asarray(contact_sheet(right)).reshape(-1, 3)}
    assert not {(192, 28, 40), (154, 91, 0)} & blank


def test_the_sheet_shows_accepted_wrong_answers_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = predict_images(load(n_draws=10, device="cpu"), read_manifest(folder), 10)
    seven = results[0].prediction
    assert seven is not None
    shown: list[LabelledPrediction] = []
    monkeypatch.setattr(
        "training.reporting.contact_sheet._upload", lambda r: shown.append(r) or blank
    )
    blank = Image.new("RGB", (28, 28))
    rejected = replace(seven, decision="review", reasons=("uncertain",))
    contact_sheet(
        [
            LabelledPrediction(entry("7"), rejected),
            LabelledPrediction(entry("3"), rejected),
            LabelledPrediction(entry("letter"), seven, is_digit=False),
            LabelledPrediction(entry("1"), seven),
        ]
    )
    assert [r.image.label for r in shown] == ["1", "letter", "3", "7"]


def test_a_sheet_is_bounded(folder: Path) -> None:
    bad = LabelledPrediction(LabelledImage(folder / "bad.png", "1", "k"), None, "damaged")
    assert contact_sheet([bad] * 301).size == contact_sheet([bad] * 300).size
