"""Container images: their sizes, the time from start to healthy, the time of a rebuild.

Needs a Docker engine. Builds the images in a Compose project of its own and removes them.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common.report import format_table, make_parser, write_json
from benchmarks.serving.compose import Compose

_ROOT = Path(__file__).parents[2]
_STARTS = 5


def main() -> int:
    """Run the command; returns its exit code."""
    options = make_parser("serving.containers", __doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sources = Path(temporary) / "sources"
        _copy_sources(sources)
        compose = Compose("maybe-benchmark", sources)
        try:
            results = _measure(compose)
        except subprocess.CalledProcessError as error:
            print(f"error: {' '.join(error.cmd)}\n{error.stdout}", file=sys.stderr)
            return 1
        finally:
            compose("--profile", "training", "down", "--volumes", "--rmi", "local")
    print(format_table([{"what": what, "": value} for what, value in results.items()]))
    write_json(options.json, {"containers": results})
    return 0


def _measure(compose: Compose) -> dict[str, float]:
    compose("--profile", "training", "build")
    results: dict[str, float] = {}
    for image in ("service", "training"):
        name = f"{compose.project}-{image}"
        size = compose.run("docker", "inspect", "-f", "{{.Size}}", name)
        results[f"image {image}, MB"] = int(size) / 1e6
    starts = []
    for _ in range(_STARTS):
        starts.append(_seconds(compose, "up", "--wait", "--no-build"))
        compose("down", "--volumes")
    results[f"`up` to healthy, s (median of {_STARTS})"] = statistics.median(starts)
    with (compose.folder / "service" / "app.py").open("a") as file:
        file.write("# a change\n")
    results["rebuild after a source change, s"] = _seconds(compose, "build", "service")
    return results


def _seconds(compose: Compose, *arguments: str) -> float:
    started = time.monotonic()
    compose(*arguments)
    return time.monotonic() - started


def _copy_sources(folder: Path) -> None:
    """Copy the tracked files of the working tree, so that the change above stays in the copy."""
    tracked = subprocess.check_output(["git", "ls-files"], cwd=_ROOT, text=True)
    for name in tracked.splitlines():
        if (_ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, folder / name)


if __name__ == "__main__":
    sys.exit(main())
