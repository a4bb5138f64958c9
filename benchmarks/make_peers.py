"""`python -m benchmarks.make_peers`: `.venv-peers`, the environment with the benchmarks' peers.

It holds what `peers.txt` names; everything else, PyTorch's gigabytes included, it shares with the
environment of the interpreter that runs this, which is not changed. Peers get the versions in
`constraints.txt`, as this project does, so that both sides of a comparison rest on the same ones.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

__all__ = ["main"]

_ROOT = Path(__file__).parent.parent
_TARGET = _ROOT / ".venv-peers"
_PEERS = Path(__file__).parent / "peers.txt"
_CONSTRAINTS = _ROOT / "constraints.txt"

# bentoml pins OpenTelemetry's instrumentation, which pins the API in its turn, one step behind
# this project's; nothing that is measured depends on it.
_NOT_CONSTRAINED = ("opentelemetry-api",)

_CHECK = "import bayesian_torch, bentoml, blitz, litserve, model, openvino, torch, torchbnn"


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.make_peers", description=__doc__)
    parser.add_argument("--clear", action="store_true", help="remove what stands there, first")
    options = parser.parse_args()
    if Path(sys.prefix).resolve() == _TARGET.resolve():
        print("error: run this with the project's own environment (.venv)", file=sys.stderr)
        return 2
    try:
        print(f"making {_TARGET}, which shares {sysconfig.get_path('purelib')}", flush=True)
        python = _make_environment(clear=options.clear)
        print(f"installing {_PEERS.relative_to(_ROOT)}", flush=True)
        _install(python)
        print("importing everything", flush=True)
        # Where no modules of this folder can hide what was installed.
        subprocess.run([python, "-c", _CHECK], cwd=_TARGET, check=True)
    except OSError as error:
        print(f"error: {_TARGET} could not be made: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(
            f"error: {' '.join(map(str, error.cmd))} failed with {error.returncode}; its own "
            "message stands above. `--clear` starts from nothing.",
            file=sys.stderr,
        )
        return 1
    print(f"ready: {python.relative_to(_ROOT)} -m benchmarks.predict")
    return 0


def _make_environment(*, clear: bool) -> Path:
    """An environment that finds its own packages first and then those of this interpreter."""
    venv.create(_TARGET, clear=clear, with_pip=False)  # pip is shared, too
    python = _TARGET / "bin" / "python"
    ask = "import json, sysconfig; print(json.dumps(sysconfig.get_path('purelib')))"
    done = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    # addsitedir, not a bare path: it follows the .pth files there, by which this project is found.
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in sorted(shared)]
    Path(json.loads(done.stdout), "shared.pth").write_text("".join(lines))
    return python


def _install(python: Path) -> None:
    lines = _CONSTRAINTS.read_text().splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as temporary:
        constraints = Path(temporary) / "constraints.txt"
        kept = (line for line in lines if line.partition("==")[0] not in _NOT_CONSTRAINED)
        constraints.write_text("".join(kept))
        subprocess.run(
            [
                python, "-m", "pip", "--disable-pip-version-check", "install",
                "--constraint", constraints, "--requirement", _PEERS,
            ],
            cwd=_ROOT, check=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
