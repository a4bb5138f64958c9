"""Make `.venv-peers`, the environment with the compared libraries and servers.

`python -m benchmarks.common.make_peers` installs `peers.txt` into it. All other packages come from
the environment of the interpreter that runs the command. Both sides of a comparison use the
versions in `constraints.txt`.
"""

import argparse
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

__all__ = ["main"]

_ROOT = Path(__file__).parents[2]
_TARGET = _ROOT / ".venv-peers"
_PEERS = Path(__file__).parent / "peers.txt"

# BentoML needs older versions of these than constraints.txt has; no measurement depends on them.
_UNCONSTRAINED = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-semantic-conventions")

_CHECK = "import bayesian_torch, bentoml, blitz, litserve, model, openvino, torch, torchbnn"


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.common.make_peers", description=__doc__
    )
    parser.add_argument("--clear", action="store_true", help="remove the old environment first")
    options = parser.parse_args()
    if Path(sys.prefix).resolve() == _TARGET.resolve():
        print("error: run this with the project's own environment (.venv)", file=sys.stderr)
        return 2
    try:
        python = _make_environment(clear=options.clear)
        _install(python)
        # In another folder, so that no module here shadows an installed one.
        subprocess.run([python, "-c", _CHECK], cwd=_TARGET, check=True)
    except OSError as error:
        print(f"error: cannot make {_TARGET}: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        print(
            f"error: `{command}` failed with exit code {error.returncode}; its message is above. "
            "`--clear` starts from an empty environment.",
            file=sys.stderr,
        )
        return 1
    print(f"ready: {python.relative_to(_ROOT)} -m benchmarks.inference.predict")
    return 0


def _make_environment(*, clear: bool) -> Path:
    """Make the environment, which falls back on this interpreter's packages; return its Python."""
    print(f"making {_TARGET}, which shares the packages of {sys.prefix}", flush=True)
    venv.create(_TARGET, clear=clear, with_pip=False)  # pip is shared, too
    own = sysconfig.get_path("purelib", "venv", {"base": str(_TARGET)})
    # addsitedir follows the .pth files there, by which this project is found.
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in sorted(shared)]
    Path(own, "shared.pth").write_text("".join(lines))
    return _TARGET / "bin" / "python"


def _install(python: Path) -> None:
    lines = (_ROOT / "constraints.txt").read_text().splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        kept = (line for line in lines if line.partition("==")[0] not in _UNCONSTRAINED)
        constraints.write_text("".join(kept))
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "-c", constraints, "-r", _PEERS], cwd=_ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
