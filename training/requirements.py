"""Check of the packages that training needs beyond the base installation.

A command calls `check_requirements` before it imports them, so that a missing package is one line
on standard error instead of a traceback.
"""

import importlib.util
import sys

REQUIRED = ("jinja2", "matplotlib", "scipy", "skimage", "sklearn", "torch", "torchvision", "tqdm")
"""Import names of the packages of the extra `training`."""


def check_requirements() -> None:
    """Exit with code 2 if a required package is missing, and say how to install it."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"error: training needs {', '.join(missing)}: run `make train`, or "
            "`pip install 'maybe-neural-network[training]'`",
            file=sys.stderr,
        )
        sys.exit(2)
