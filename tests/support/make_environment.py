"""`python -m tests.support.make_environment`: `.venv-ray`, the environment that has Ray.

It is not part of `.venv`, so that all else is tested without what Ray brings along: thirty packages
in 330 MB, among them some that uvicorn uses wherever it finds them.
"""

import sys
import tomllib

from benchmarks.common.environment import install, make_environment
from tests.support.paths import ROOT


def main() -> None:
    """Make the environment, or bring it up to date."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    target = ROOT / ".venv-ray"
    print(f"making {target}, which shares {sys.prefix}", flush=True)
    install(make_environment(target), *project["optional-dependencies"]["ray"])


if __name__ == "__main__":
    main()
