"""Sections of the report on the rules and on where the weights come from."""

from collections.abc import Mapping
from typing import Any

from training.evaluation.result import Evaluation
from training.reporting.html.page import code, details, figure, paragraph, table
from training.reporting.html.words import NOT_KNOWN, SCORES, flat, number, words
from training.reporting.plots import plot_training

__all__ = ["again", "rules", "trained"]


def rules(evaluation: Evaluation) -> str:
    """The decision rule and the prediction sets, with what they promise."""
    checkpoint = evaluation.checkpoint
    selective = checkpoint.selective
    blocks = []
    if selective.threshold >= 0:
        blocks.append(
            f"An answer is accepted without a person looking if its score, "
            f"{SCORES.get(selective.score, words(selective.score))}, is at most "
            f"{selective.threshold:.4g} and if the door through which pictures come found nothing "
            "odd about it. All others go to a person."
        )
    blocks += [selective.guarantee(), checkpoint.conformal.guarantee()]
    if evaluation.n_draws != selective.n_draws:
        blocks.append(
            f"This report used {evaluation.n_draws} draws, the rule was calibrated with "
            f"{selective.n_draws}: what it promises does not hold for these figures."
        )
    if not checkpoint.draws_are_reproduced():
        blocks.append(
            "This installation draws other networks than the one that calibrated the rules: what "
            "they promise does not hold for these figures."
        )
    return "\n".join(paragraph(block) for block in blocks)


def trained(evaluation: Evaluation) -> str:
    """How the fit went, with what settings, data and versions."""
    training = evaluation.checkpoint.training
    blocks = []
    epochs = training.get("epochs")
    if epochs:
        drawn = plot_training(epochs)
        blocks.append(
            figure(
                drawn,
                alt=f"Training curves over {len(epochs)} epochs.",
                caption="One point an epoch. The negative log-likelihood says how well the "
                "training pictures are read, the KL divergence how far the posterior has moved "
                "from the prior: its price in the objective. Flat ends say that more epochs would "
                "hardly have helped.",
            )
        )
    data = training.get("data")
    data = data if isinstance(data, Mapping) else {}
    facts = {key: training[key] for key in _FACTS if key in training}
    facts |= {key: value for key, value in data.items() if not _is_part(key, value)}
    if facts:
        blocks.append(table("The run", ["", "value"], flat(facts), words=True))
    blocks.append(_data_table({key: data[key] for key in data if _is_part(key, data[key])}))
    settings = {key: training[key] for key in _SETTINGS if isinstance(training.get(key), Mapping)}
    for key, values in settings.items():
        title = _SETTINGS[key]
        content = table(title, ["", "value"], flat(values), words=True)
        blocks.append(details(title, content))
    return "\n".join(block for block in blocks if block)


def again(evaluation: Evaluation) -> str:
    """How to make the report again."""
    command = "python -m training.evaluate"
    if evaluation.n_draws != evaluation.checkpoint.selective.n_draws:
        command += f" --draws {evaluation.n_draws}"
    return "\n".join(
        [
            code(command),
            paragraph(
                "computes all of this again from the weights alone. The version "
                f"{evaluation.version} is a hash of everything that decides an answer: where it is "
                "the same, the answers are. All figures lie beside this file as JSON."
            ),
        ]
    )


_FACTS = ("dataset", "created", "seconds", "device", "threads", "machine", "input_contract")
_HASH = "_sha256"
_SETTINGS = {
    "fit": "Settings of the fit",
    "architecture": "Architecture and prior",
    "versions": "Versions of what it was made with",
}


def _is_part(key: str, value: object) -> bool:
    return isinstance(value, Mapping) or key.endswith(_HASH)


def _data_table(data: Mapping[str, Any]) -> str:
    """The parts of the data by number and hash, those that were fitted to first."""
    if not data:
        return ""
    rows = []
    order = ("fit", "validation", "calibration", f"test{_HASH}")
    for key in dict.fromkeys([*(key for key in order if key in data), *data]):
        value = data[key] if isinstance(data[key], Mapping) else {"sha256": data[key]}
        n, sha256 = number(value.get("n"), "{:,}"), str(value.get("sha256", NOT_KNOWN))
        rows.append((words(key.removesuffix(_HASH)), [n, sha256]))
    caption = "The data: number of pictures, and a hash of pictures and labels"
    return table(caption, ["part", "pictures", "SHA-256"], rows, words=True)
