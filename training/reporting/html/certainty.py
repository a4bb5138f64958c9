"""Sections of the report on how sure answers are, and whether rightly.

Each is empty where its data is missing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from model.uncertainty import Floats
from training.evaluation.intervals import UNSURE_BELOW
from training.evaluation.predictions import Answers
from training.evaluation.result import Evaluation
from training.reporting.html.page import figure, table
from training.reporting.html.words import Column, flat, measured_table, number, percent, words
from training.reporting.plots import (
    plot_confidence,
    plot_entropy,
    plot_reliability,
    plot_risk_coverage,
)

__all__ = ["calibration", "how_sure", "when_to_accept"]

_ENTROPIES = {
    "predictive_entropy": "How undecided the averaged answer is: 0 if it names one digit alone.",
    "expected_entropy": "How undecided each sampled network is by itself: the part of the entropy "
    "that more training data would not remove, because the picture is ambiguous.",
    "mutual_information": "How much the sampled networks disagree: the part of the entropy that "
    "comes from not knowing the weights, and that grows on what was never seen.",
}
_INTERVAL_COLUMNS = (
    Column("pictures", "n", "{:,}"),
    Column("probability", "probability", "{:.4f}"),
    Column("lower end", "lower", "{:.4f}"),
    Column("upper end", "upper", "{:.4f}"),
    Column("held", "held", "{:.1f} %", 100),
)


def how_sure(evaluation: Evaluation) -> str:
    """How the probabilities and entropies are distributed, right against wrong against foreign."""
    answers = evaluation.main
    if answers is None or not len(answers):
        return ""
    rule = evaluation.checkpoint.selective
    limit = rule.threshold if rule.threshold >= 0 else None
    foreign = ""
    if evaluation.foreign:
        foreign = " Below, digits beside pictures that are none: the less they overlap, the better."
    blocks = []
    for score, title, label, value in _confidences(answers):
        threshold = 1 - limit if limit is not None and rule.score == score else None
        three = _three(evaluation, value)
        blocks.append(
            figure(
                plot_confidence(*three, label=label, title=title, threshold=threshold),
                alt=f"Histogram of the {label}, right and wrong answers apart.",
                caption="Wrong answers should stand to the left, where the network is unsure; a "
                f"wrong one at the far right is one that nobody would question.{foreign}",
            )
        )
    for score, meaning in _ENTROPIES.items():
        drawn = plot_entropy(
            *_three(evaluation, _entropy(score)),
            len(evaluation.labels),
            label=words(score),
            threshold=limit if rule.score == score else None,
        )
        alt = f"Histogram of the {words(score)}, right and wrong answers apart."
        blocks.append(figure(drawn, alt=alt, caption=f"{meaning}{foreign}"))
    return "\n".join(blocks)


def when_to_accept(evaluation: Evaluation) -> str:
    """Error rate against coverage, for every part."""
    parts = {name: part for name, part in evaluation.parts.items() if len(part)}
    blocks = []
    if evaluation.main is not None and parts:
        rule = evaluation.checkpoint.selective
        drawn = plot_risk_coverage(
            {name: evaluation.curve(part) for name, part in parts.items()},
            chosen=evaluation.operating_point(evaluation.main),
            target=rule.target,
        )
        coverage, risk = evaluation.operating_point(evaluation.main)
        blocks.append(
            figure(
                drawn,
                alt=f"Risk–coverage curves. On the part {evaluation.main_name} the rule accepts "
                f"{percent(coverage)} of the answers, of which {percent(risk)} are wrong.",
                caption="From right to left, the least certain answers are given to a person. The "
                "faster a curve falls, the better the network knows what it does not know. The "
                f"star is the rule on the part {evaluation.main_name}; it should lie below the "
                "dotted line. Where a curve has not begun, nothing accepted is wrong.",
            )
        )
    blocks.append(_coverage_table(evaluation.group("parts")))
    return "\n".join(block for block in blocks if block)


def calibration(evaluation: Evaluation) -> str:
    """Reliability diagrams, and how well the credible intervals hold."""
    blocks = []
    shown = dict.fromkeys([evaluation.main_name, "imitated"])
    for name in shown:
        answers = evaluation.parts.get(name)
        if answers is None or answers.labels is None or not len(answers):
            continue
        blocks.append(
            figure(
                plot_reliability(answers.summary.probability, answers.labels),
                alt=f"Reliability diagram of the part {name}, with the number of answers per bin.",
                caption=f"Part {name}. If the network says 0.8, eight of ten such answers should "
                "be right: then the points lie on the line. Whiskers show what chance alone could "
                "do; where they miss the line, it is not chance. Most answers are in the last bin.",
            )
        )
    blocks += _intervals(evaluation.group("intervals"))
    return "\n".join(blocks)


def _intervals(found: Mapping[str, Any]) -> list[str]:
    """How well the credible intervals hold; what is not known here by its name is listed."""
    level = percent(found.get("level"), 0)
    captions = {
        "monte_carlo": "By how much the numbers of the most probable digit change, on average, "
        "with as many other draws: the Monte Carlo error of an answer",
        "another": f"How often the {level} interval of the most probable digit holds what an "
        "independently trained network says. Far below that, the posterior is narrower than what "
        "another training would change",
    }
    blocks = [
        measured_table(captions[name], "answers", _by_certainty(found[name]), _INTERVAL_COLUMNS)
        for name in captions
        if isinstance(found.get(name), Mapping)
    ]
    rest = {name: value for name, value in found.items() if name not in (*captions, "level")}
    if rest:
        caption = "More about the credible intervals"
        blocks.append(table(caption, ["figure", "value"], flat(rest), words=True))
    return blocks


def _by_certainty(rows: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    titles = {"unsure": f"unsure ones, below {UNSURE_BELOW:g}"}
    return {
        titles.get(name, name): values
        for name, values in rows.items()
        if isinstance(values, Mapping)
    }


def _confidences(answers: Answers) -> list[tuple[str, str, str, Callable[[Answers], Floats]]]:
    """Score that belongs to it, title, words and values of each probability to be drawn."""
    found: list[tuple[str, str, str, Callable[[Answers], Floats]]] = [
        (
            "one_minus_max_probability",
            "How sure of the digit",
            "mean probability of the most probable digit",
            lambda part: part.summary.probability.max(axis=1),
        )
    ]
    if answers.summary.not_a_digit.any():
        found.append(
            (
                "one_minus_joint_probability",
                "How sure of a digit, and this one",
                "mean probability of “it is a digit, and it is this one”",
                lambda part: part.summary.joint_probability,
            )
        )
    return found


def _entropy(name: str) -> Callable[[Answers], Floats]:
    def value(answers: Answers) -> Floats:
        values: Floats = getattr(answers.summary, name)
        return values

    return value


def _three(
    evaluation: Evaluation, value: Callable[[Answers], Floats]
) -> tuple[Floats, Floats, dict[str, Floats]]:
    """A figure of the main part's right answers, of its wrong ones and of the foreign sets."""
    answers = evaluation.main
    if answers is None:
        raise ValueError("there is no part to draw")
    values, foreign = value(answers), evaluation.foreign.items()
    return (
        values[answers.correct],
        values[~answers.correct],
        {name: value(part) for name, part in foreign if len(part)},
    )


def _coverage_table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    known = {
        name: values["errors_at_coverage"]
        for name, values in parts.items()
        if values.get("errors_at_coverage")
    }
    if not known:
        return ""
    levels = sorted({level for table_ in known.values() for level in table_}, key=float)
    rows = [
        (
            f"{percent(float(level), 0)}",
            [_errors(table_.get(level)) for table_ in known.values()],
        )
        for level in levels
    ]
    caption = "Wrong answers among the most certain ones, by how many are answered"
    return table(caption, ["answered", *known], rows)


def _errors(values: Mapping[str, Any] | None) -> str:
    if not values or not values.get("n"):
        return number(None, "")
    n, errors = values["n"], values.get("errors")
    share = percent(errors / n, 3) if isinstance(errors, int | float) else ""
    return f"{number(errors, '{:,}')} of {number(n, '{:,}')}" + (share and f"\n{share}")
