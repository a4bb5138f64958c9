"""What becomes of the answers when digits are turned or corrupted, step by step."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.decision import SelectiveRule
from training.data.datasets import Inputs, Part, preprocess
from training.evaluation.corruptions import KINDS, corrupt
from training.evaluation.metrics import error_rate, nll
from training.evaluation.predictions import Answers
from training.evaluation.summary import accepted

__all__ = ["ANGLES_DEG", "corruption_sweep", "rotation_sweep"]

ANGLES_DEG = tuple(range(0, 181, 15))

_N_TURNED = 500
_N_CORRUPTED = 2000

Ask = Callable[[Inputs, NDArray[np.int64], str], Answers]


def rotation_sweep(
    ask: Ask,
    part: Part,
    rule: SelectiveRule | None = None,
    *,
    n: int = _N_TURNED,
    processes: int = 1,
) -> list[dict[str, Any]]:
    """Turn the first digits of a part counter-clockwise and ask again at every angle.

    Args:
        ask: Answers for inputs with their labels, given a name.
        part: The digits.
        rule: When to accept; without one, what is accepted is left out.
        n: How many of them to turn.
        processes: How many prepare them at once.

    Returns:
        For each angle, in degrees: error, accepted share, wrong among the accepted, and the means
        of the uncertainties.
    """
    images, labels = part.images[:n], part.labels[:n]
    result = []
    for angle in ANGLES_DEG:
        turned = Part(np.stack([_turned(image, angle) for image in images]), labels)
        name = f"digits turned by {angle}°"
        answers = ask(preprocess(turned, name, processes=processes), labels, name)
        summary = answers.summary
        result.append(
            {
                "angle_deg": angle,
                **_brief(answers, rule),
                "predictive_entropy": float(summary.predictive_entropy.mean()),
                "expected_entropy": float(summary.expected_entropy.mean()),
                "mutual_information": float(summary.mutual_information.mean()),
                "not_a_digit": float(summary.not_a_digit.mean()),
            }
        )
    return result


def corruption_sweep(
    ask: Ask, part: Part, rule: SelectiveRule, *, n: int = _N_CORRUPTED, processes: int = 1
) -> dict[str, dict[str, Any]]:
    """Corrupt the first digits of a part in the 15 ways of MNIST-C; see `rotation_sweep`.

    Source: Mu and Gilmer (2019), "MNIST-C: A Robustness Benchmark for Computer Vision".
    """
    images, labels = part.images[:n], part.labels[:n]
    if images.shape[1:] != (28, 28):
        images = preprocess(Part(images, labels), "digits", processes=processes).pixels
    result = {}
    for number, kind in enumerate(KINDS):
        rng = np.random.Generator(np.random.Philox(key=np.array([number, 0], np.uint64)))
        changed = Part(np.stack([corrupt(image, kind, rng) for image in images]), labels)
        name = kind.replace("_", " ")
        answers = ask(preprocess(changed, name, processes=processes), labels, name)
        result[kind] = _brief(answers, rule)
    return result


def _turned(image: NDArray[Any], angle_deg: float) -> NDArray[np.float32]:
    """A picture turned around its middle, in values from 0 to 1."""
    ink = np.asarray(image, np.float32)
    scale = 255 if image.dtype == np.uint8 else 1
    turned = Image.fromarray(ink / np.float32(scale)).rotate(angle_deg, Image.Resampling.BICUBIC)
    return np.asarray(turned).clip(0, 1)


def _brief(answers: Answers, rule: SelectiveRule | None) -> dict[str, Any]:
    if answers.labels is None:
        raise ValueError(f"{answers.name}: the true classes are needed")
    result: dict[str, Any] = {
        "n": len(answers),
        "error": error_rate(answers.summary.probability, answers.labels),
        "nll": nll(answers.summary.probability, answers.labels),
    }
    if rule is not None:
        taken = accepted(answers, rule)
        result["accepted"] = float(taken.mean())
        result["errors_accepted"] = int((taken & ~answers.correct).sum())
    return result
