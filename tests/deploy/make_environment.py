"""`python -m tests.deploy.make_environment`: `.venv-ray`, the environment that has Ray.

It is not part of `.venv`, since Ray brings uvloop along, which uvicorn uses wherever it finds it:
the service by itself would then be tested with another event loop than the one it comes with.
"""

import sys
import tomllib

from benchmarks.environment import install, make_environment
from tests.conftest import ROOT


def main() -> None:
    """Make the environment, or bring it up to date."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    target = ROOT / ".venv-ray"
    print(f"making {target}, which shares {sys.prefix}", flush=True)
    install(make_environment(target), *project["optional-dependencies"]["ray"])


if __name__ == "__main__":
    main()
