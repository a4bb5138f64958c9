"""Command-line options shared by several commands."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from training.data.datasets import Digits, Mnist, Source

T = TypeVar("T", int, float)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add `--dataset` and `--data-dir`."""
    parser.add_argument(
        "--dataset",
        choices=[Mnist.name, Digits.name],
        help="mnist (default), or digits: scikit-learn's bundled set, needs no network",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("MNN_DATA_DIR") or "data"),
        help="torchvision root that holds MNIST/raw, or where to download it "
        "(default: MNN_DATA_DIR, else data)",
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        type=_device,  # checks MNN_DEVICE too, as choices would not
        default=os.environ.get("MNN_DEVICE") or "auto",
        help="auto, cpu or cuda; default: MNN_DEVICE, else CUDA where it is available",
    )


def data_source(name: str, data_dir: Path) -> Source:
    """The data set with a given name.

    Raises:
        ValueError: If the name is unknown.
    """
    if name == Digits.name:
        return Digits()
    if name == Mnist.name:
        return Mnist(data_dir)
    raise ValueError(f"unknown data set {name!r}; known are {Mnist.name} and {Digits.name}")


def number(
    kind: Callable[[str], T], valid: Callable[[T], bool], expected: str
) -> Callable[[str], T]:
    """A type of argparse: a number that must be valid, or the error says what is expected."""

    def parse(text: str) -> T:
        value = kind(text)
        if not valid(value):
            raise argparse.ArgumentTypeError(f"must be {expected}, not {text}")
        return value

    parse.__name__ = kind.__name__
    return parse


positive = number(int, lambda value: value >= 1, "at least 1")
"""A whole number of at least 1."""


def _device(text: str) -> str:
    if text not in ("auto", "cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be auto, cpu or cuda, not {text!r}")
    return text
