"""An environment of its own that shares everything else with that of this interpreter.

PyTorch's gigabytes included; the shared environment is not changed. What is installed gets the
versions in `constraints.txt`, as this project does.
"""

import json
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Collection
from pathlib import Path

__all__ = ["install", "make_environment"]

_ROOT = Path(__file__).parents[2]
_CONSTRAINTS = _ROOT / "constraints.txt"


def make_environment(target: Path, *, clear: bool = False) -> Path:
    """Make an environment that finds its own packages first and then those of this interpreter.

    Args:
        target: Its folder.
        clear: Whether what stands there is removed first.

    Returns:
        Its interpreter.

    Raises:
        OSError: If it cannot be written.
        subprocess.CalledProcessError: If its interpreter does not run.
    """
    venv.create(target, clear=clear, with_pip=False)  # pip is shared, too
    python = target / "bin" / "python"
    ask = "import json, sysconfig; print(json.dumps(sysconfig.get_path('purelib')))"
    done = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    # addsitedir, not a bare path: it follows the .pth files there, by which this project is found.
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in sorted(shared)]
    Path(json.loads(done.stdout), "shared.pth").write_text("".join(lines))
    return python


def install(python: Path, *wanted: str | Path, not_constrained: Collection[str] = ()) -> None:
    """Install into an environment what pip's arguments say, in the versions that were tested.

    Raises:
        subprocess.CalledProcessError: If pip fails; its own message stands on standard error.
    """
    lines = _CONSTRAINTS.read_text().splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as temporary:
        constraints = Path(temporary) / "constraints.txt"
        kept = (line for line in lines if line.partition("==")[0] not in not_constrained)
        constraints.write_text("".join(kept))
        subprocess.run(
            [
                python, "-m", "pip", "--disable-pip-version-check", "install",
                "--constraint", constraints, *wanted,
            ],
            cwd=_ROOT, check=True,
        )  # fmt: skip
