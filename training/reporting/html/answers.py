"""Sections of the report on digits that were held out. Each is empty where its data is missing."""

from collections.abc import Mapping
from typing import Any

from training.evaluation.predictions import Answers
from training.evaluation.result import Evaluation
from training.reporting.html.page import figure, paragraph, table
from training.reporting.html.words import (
    NBSP,
    PARTS,
    Column,
    interval,
    known_columns,
    measured_table,
    number,
    percent,
)
from training.reporting.plots import plot_confusion, plot_digit_answers

__all__ = ["held_out", "prediction_sets", "uncertain", "wrong"]

_N_EXAMPLES = 12
_PERCENT, _PLAIN = f"{{:.2f}}{NBSP}%", "{:.4f}"
_FIGURES = (
    Column("pictures", "n", "{:,}"),
    Column("wrong", "error", _PERCENT, 100),
    Column("negative log-likelihood (nats)", "nll", _PLAIN),
    Column("Brier score (0 to 2)", "brier_score", _PLAIN),
    Column("calibration error, 15 equal bins", "calibration_error", _PERCENT, 100),
    Column("calibration error, 15 bins of equally many pictures", "adaptive_calibration_error",
           _PERCENT, 100),
    Column("predictive entropy, mean (nats)", "predictive_entropy", _PLAIN),
    Column("mutual information, mean (nats)", "mutual_information", _PLAIN),
    Column("“no digit”, mean probability", "not_a_digit", _PERCENT, 100),
    Column("flagged by the door", "flagged", _PERCENT, 100),
    Column("accepted without a person", "accepted", _PERCENT, 100),
    Column("wrong among the accepted", "errors_accepted", "{:,}"),
    Column("area under risk–coverage", "aurc", "{:.6f}"),
    Column("prediction sets that hold the true digit", "set_coverage", _PERCENT, 100),
    Column("digits in a prediction set, mean", "set_size", "{:.3f}"),
    Column("prediction sets of more than one digit", "set_larger_than_one", _PERCENT, 100),
)  # fmt: skip


def held_out(evaluation: Evaluation) -> str:
    """The table of figures by part, and which digit is taken for which."""
    parts = evaluation.group("parts")
    blocks = []
    if parts:
        said = "; ".join(f"{name}: {PARTS[name]}" for name in parts if name in PARTS)
        blocks.append(paragraph(f"None of these pictures was fitted to. {said}." if said else ""))
        rows = [
            (column.title, [_cell(values, column) for values in parts.values()])
            for column in known_columns(_FIGURES, parts)
        ]
        caption = "Held-out figures by part; below a figure its 95 % bootstrap interval"
        blocks.append(table(caption, ["", *parts], rows))
    answers = evaluation.main
    if answers is not None and answers.labels is not None and len(answers):
        predicted = answers.summary.probability.argmax(axis=1)
        n_wrong = int((~answers.correct).sum())
        drawn = plot_confusion(answers.labels, predicted, evaluation.labels)
        blocks.append(
            figure(
                drawn,
                alt=f"Confusion matrix of the part {evaluation.main_name}: {n_wrong:,} of "
                f"{len(answers):,} answers off the diagonal.",
                caption=f"Part {evaluation.main_name}. Grey: read rightly. The darker a cell, the "
                "more pictures of its row’s digit were read as its column’s. Look for pairs that "
                "stand out, such as 4 and 9.",
            )
        )
    return "\n".join(blocks)


def uncertain(evaluation: Evaluation) -> str:
    """The digits that the decision rule trusts least."""
    answers = evaluation.main
    if answers is None or not len(answers):
        return ""
    return _examples(
        evaluation,
        answers,
        [int(i) for i in evaluation.most_uncertain(answers, _N_EXAMPLES)],
        f"The most uncertain digits of the part {evaluation.main_name}",
        "The least certain comes first. Would you be sure? Wide whiskers say that the sampled "
        "networks disagree; two high bars with short whiskers, that all of them find it ambiguous.",
    )


def wrong(evaluation: Evaluation) -> str:
    """The wrong answers that were surest of themselves."""
    answers = evaluation.main
    if answers is None or answers.labels is None or not len(answers):
        return ""
    which = [int(i) for i in evaluation.surest_wrong(answers, _N_EXAMPLES)]
    if not which:
        return paragraph(f"Of the {len(answers):,} answers none was wrong.")
    n_wrong, accepted = int((~answers.correct).sum()), evaluation.accepted(answers)
    n_accepted = int((accepted & ~answers.correct).sum())
    return _examples(
        evaluation,
        answers,
        which,
        f"The surest of the wrong answers of the part {evaluation.main_name}",
        f"The surest comes first. Of all {n_wrong:,} wrong answers {n_accepted:,} were accepted; "
        "only those would have gone unnoticed. Look before blaming it: a label may be debatable.",
    )


def prediction_sets(evaluation: Evaluation) -> str:
    """How large the prediction sets are and how often they hold the true digit, by class."""
    parts = evaluation.group("parts")
    names = [name for name in (*PARTS, *parts) if parts.get(name, {}).get("sets_by_class")]
    found = parts[names[0]]["sets_by_class"] if names else evaluation.group("sets_by_class")
    if not found:
        return ""
    rule = evaluation.checkpoint.conformal
    columns = (
        Column("pictures", "n", "{:,}"),
        Column("hold the true digit", "coverage", _PERCENT, 100),
        Column("digits in a set, mean", "size", "{:.3f}"),
        Column("with more than one digit", "larger_than_one", _PERCENT, 100),
    )
    caption = (
        f"Prediction sets by true digit, part {names[0] if names else 'test'}. What is promised is "
        f"{percent(rule.coverage)} over all digits together; look for a digit that falls short."
    )
    return measured_table(caption, "true digit", found, columns)


def _examples(
    evaluation: Evaluation, answers: Answers, which: list[int], title: str, caption: str
) -> str:
    drawn = plot_digit_answers(
        answers, which, evaluation.labels, accepted=evaluation.accepted(answers)
    )
    alt = f"{title}: {len(which)} pictures, each with the probabilities of all digits."
    return figure(drawn, alt=alt, caption=f"{title}. {caption}")


def _cell(values: Mapping[str, Any], column: Column) -> str:
    """A figure, and below it its interval."""
    intervals = values.get("intervals")
    ends = intervals.get(column.key) if isinstance(intervals, Mapping) else None
    below = interval(ends, column.form, column.factor)
    return number(values.get(column.key), column.form, column.factor) + (below and f"\n{below}")
