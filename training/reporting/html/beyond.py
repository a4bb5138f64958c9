"""Sections of the report on what the network was not trained for.

Each is empty where its data is missing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from training.evaluation.result import Evaluation
from training.reporting.html.page import details, figure, paragraph, table
from training.reporting.html.words import (
    NBSP,
    NOT_KNOWN,
    SCORES,
    Column,
    measured_table,
    number,
    percent,
    words,
)
from training.reporting.plots import (
    plot_confidence,
    plot_corruptions,
    plot_digit_answers,
    plot_rotation,
)

__all__ = ["corrupted", "foreign", "turned"]

_N_EXAMPLES = 3
_PERCENT, _PLAIN = f"{{:.2f}}{NBSP}%", "{:.3f}"
_UNCERTAINTY = (
    Column("predictive entropy (nats)", "predictive_entropy", _PLAIN),
    Column("mutual information (nats)", "mutual_information", _PLAIN),
    Column("“no digit”, mean", "not_a_digit", _PERCENT, 100),
)
_OF_NO_DIGIT = ("not_a_digit", "one_minus_joint_probability")
_FOREIGN = (
    Column("pictures", "n", "{:,}"),
    Column("accepted, wrongly", "accepted", _PERCENT, 100),
    Column("accepted where 97 % of digits are", "accepted_where_97_of_digits_are", _PERCENT, 100),
    Column("flagged by the door", "flagged", _PERCENT, 100),
    Column("of the rejected, “unlike training”", "unlike_training", _PERCENT, 100),
    *_UNCERTAINTY,
    Column("mutual information, times the digits’", "mutual_information_ratio", "{:.1f}"),
)
_TURNED = (
    Column("wrong", "error", _PERCENT, 100),
    Column("accepted", "accepted", _PERCENT, 100),
    *_UNCERTAINTY,
)
_CORRUPTED = (
    Column("pictures", "n", "{:,}"),
    Column("wrong", "error", _PERCENT, 100),
    Column("accepted", "accepted", _PERCENT, 100),
    Column("wrong among the accepted", "errors_accepted", "{:,}"),
    Column("NLL (nats)", "nll", _PLAIN),
    *_UNCERTAINTY,
)


def foreign(evaluation: Evaluation) -> str:
    """Pictures that are no digits: accepted or noticed, and how well the scores tell them apart."""
    sets = evaluation.group("foreign")
    if not sets and not evaluation.foreign:
        return ""
    blocks = [
        paragraph(
            "None of these pictures is a digit, and no picture of these sets was trained on: every "
            "accepted answer is wrong."
        )
    ]
    if missing := evaluation.figures.get("foreign_missing"):
        names = ", ".join(str(name) for name in missing)
        blocks.append(paragraph(f"Not found, and so not asked: {names}."))
    if sets:
        caption = "Pictures that are no digits, by set"
        blocks += [
            measured_table(caption, "set", sets, _FOREIGN, upright=True),
            _scores_table(sets),
        ]
    blocks += [_not_a_digit(evaluation), *_surest(evaluation)]
    return "\n".join(block for block in blocks if block)


def turned(evaluation: Evaluation) -> str:
    """What becomes of the answers as digits are turned."""
    sweep = evaluation.figures.get("rotation")
    if not sweep:
        return ""
    fit = evaluation.checkpoint.training.get("fit", {})
    fitted = (fit.get("augmentation") or {}).get("rotation_deg")
    drawn = plot_rotation(sweep, fitted_deg=fitted)
    numbers = {f"{point['angle_deg']:g}°": point for point in sweep}
    return "\n".join(
        [
            figure(
                drawn,
                alt="Curves over the angle of turning: share wrong and share accepted above, "
                "entropy and mutual information below.",
                caption="The same digits, turned step by step. As answers become wrong, fewer "
                "should be accepted and the uncertainty should rise: wrong and accepted should not "
                "be high at the same angle. A 6 turned by 180° is a 9, and no reader can know.",
            ),
            details(
                "The numbers",
                measured_table("Turned digits, by angle", "turned by", numbers, _TURNED),
            ),
        ]
    )


def corrupted(evaluation: Evaluation) -> str:
    """What becomes of the answers as digits are spoiled."""
    kinds = {words(kind): values for kind, values in evaluation.group("corruptions").items()}
    drawable = {kind: values for kind, values in kinds.items() if _can_be_drawn(values)}
    if not kinds:
        return ""
    blocks = []
    if drawable:
        blocks.append(
            figure(
                plot_corruptions(drawable),
                alt=f"Bars of the error on {len(drawable)} kinds of spoiled digits, of all answers "
                "and of the accepted ones.",
                caption="Digits spoiled on purpose, the worst kind on top. The long bar is the "
                "share of wrong answers if all were taken, the hatched one that among the accepted "
                "alone: it should be short even where the long one is not. The promise of the rule "
                "does not hold for such pictures.",
            )
        )
    rows = measured_table("Spoiled digits, by kind", "kind", kinds, _CORRUPTED)
    blocks.append(details("The numbers", rows) if blocks else rows)
    return "\n".join(blocks)


def _can_be_drawn(values: Mapping[str, Any]) -> bool:
    return all(isinstance(values.get(key), int | float) for key in ("error", "accepted"))


def _scores_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each score, a column for each set: AUROC, and the other figure below it."""
    found = [score for values in sets.values() for score in values.get("auroc") or {}]
    scores = dict.fromkeys([*(score for score in SCORES if score in found), *found])
    if not any(values.get("not_a_digit") for values in sets.values()):
        for score in _OF_NO_DIGIT:
            scores.pop(score, None)  # without such an output they say nothing, or the same again
    if not scores:
        return ""
    rows = [
        (SCORES.get(score, words(score)), [_told_apart(values, score) for values in sets.values()])
        for score in scores
    ]
    caption = (
        "How well each score tells digits from the set: AUROC (1 is perfect, 0.5 is chance), and "
        "below it the share of the set that passes where 95 % of the digits do"
    )
    return table(caption, ["score", *sets], rows)


def _told_apart(values: Mapping[str, Any], score: str) -> str:
    area = (values.get("auroc") or {}).get(score)
    rate = (values.get("fpr_at_95_tpr") or {}).get(score)
    below = percent(rate)
    return number(area, "{:.4f}") + ("" if below == NOT_KNOWN else f"\n{below} pass")


def _not_a_digit(evaluation: Evaluation) -> str:
    answers = evaluation.main
    if answers is None or not len(answers) or not answers.summary.not_a_digit.any():
        return ""
    label = "mean probability of being no digit"
    values = answers.summary.not_a_digit
    sets = {name: part.summary.not_a_digit for name, part in evaluation.foreign.items()}
    drawn = plot_confidence(
        values[answers.correct],
        values[~answers.correct],
        {name: part for name, part in sets.items() if len(part)},
        label=label,
        title="Chance of being no digit",
    )
    return figure(
        drawn,
        alt=f"Histogram of the {label}, of digits and of other pictures.",
        caption="The network has an output of its own for what is no digit. Digits should stand at "
        "the far left, other pictures at the far right.",
    )


def _surest(evaluation: Evaluation) -> list[str]:
    """For each set the pictures that were taken for digits most surely."""
    blocks = []
    for name, part in evaluation.foreign.items():
        if not len(part):
            continue
        which = np.argsort(-evaluation.certainty(part), kind="stable")[:_N_EXAMPLES]
        accepted = evaluation.accepted(part)
        drawn = plot_digit_answers(part, which, evaluation.labels, accepted=accepted)
        blocks.append(
            figure(
                drawn,
                alt=f"{len(which)} pictures of {name}, each with the probabilities of all digits.",
                caption=f"{name}: what was taken for a digit most surely. {int(accepted.sum()):,} "
                f"of {len(part):,} pictures were accepted.",
            )
        )
    return blocks
