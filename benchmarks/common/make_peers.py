"""`python -m benchmarks.common.make_peers`: `.venv-peers`, the environment with the benchmarks' peers.

It holds what `peers.txt` names and shares everything else with the environment of the interpreter
that runs this. Peers get the versions in `constraints.txt`, as this project does, so that both
sides of a comparison rest on the same ones.
"""

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.common.environment import install, make_environment

__all__ = ["main"]

_ROOT = Path(__file__).parents[2]
_TARGET = _ROOT / ".venv-peers"
_PEERS = Path(__file__).parent / "peers.txt"

# bentoml pins OpenTelemetry's instrumentation, which pins these in its turn, one step behind this
# project's; nothing that is measured depends on them.
_NOT_CONSTRAINED = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-semantic-conventions")

_CHECK = "import bayesian_torch, bentoml, blitz, litserve, model, openvino, torch, torchbnn"


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.common.make_peers", description=__doc__
    )
    parser.add_argument("--clear", action="store_true", help="remove what stands there, first")
    options = parser.parse_args()
    if Path(sys.prefix).resolve() == _TARGET.resolve():
        print("error: run this with the project's own environment (.venv)", file=sys.stderr)
        return 2
    try:
        print(f"making {_TARGET}, which shares {sysconfig.get_path('purelib')}", flush=True)
        python = make_environment(_TARGET, clear=options.clear)
        print(f"installing {_PEERS.relative_to(_ROOT)}", flush=True)
        install(python, "--requirement", _PEERS, not_constrained=_NOT_CONSTRAINED)
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
    print(f"ready: {python.relative_to(_ROOT)} -m benchmarks.inference.predict")
    return 0


if __name__ == "__main__":
    sys.exit(main())
