"""`python -m benchmarks.serving.containers`: sizes of the images, time to healthy, time to rebuild.

Needs a Docker engine. Builds what is missing, in a project of its own that is removed again.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.common.report import format_table, write_json
from benchmarks.serving.compose import Compose

__all__ = ["main"]

_ROOT = Path(__file__).parents[2]
_PROJECT = "maybe-benchmark"
_STARTS = 5


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.containers", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="also write the results there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sources = Path(temporary) / "sources"
        _copy_sources(sources)
        compose = Compose(_PROJECT, sources)
        try:
            results = _measure(compose)
        except subprocess.CalledProcessError as error:
            print(f"error: {' '.join(error.cmd)}\n{error.stdout}", file=sys.stderr)
            return 1
        finally:
            compose("--profile", "training", "down", "--volumes", "--rmi", "local")
    print(format_table([{"what": what, "": value} for what, value in results.items()]))
    if options.json:
        write_json(options.json, {"containers": results})
    return 0


def _measure(compose: Compose) -> dict[str, float]:
    results: dict[str, float] = {}
    steps = tqdm(["build", "size", "start", "rebuild"], desc="containers", disable=None)
    for step in steps:
        steps.set_postfix_str(step)
        if step == "build":
            compose("--profile", "training", "build")
        elif step == "size":
            for image in ("service", "training"):
                image_name = f"{compose.project}-{image}"
                size = compose.run("docker", "inspect", "-f", "{{.Size}}", image_name)
                results[f"image {image}, MB"] = int(size) / 1e6
        elif step == "start":
            seconds = [_seconds_to_healthy(compose) for _ in range(_STARTS)]
            results[f"`up` to healthy, s (median of {_STARTS})"] = statistics.median(seconds)
        else:
            with (compose.folder / "service" / "app.py").open("a") as file:
                file.write("# a change\n")
            started = time.monotonic()
            compose("build", "service")
            results["rebuild after a change of the sources, s"] = time.monotonic() - started
    return results


def _seconds_to_healthy(compose: Compose) -> float:
    started = time.monotonic()
    compose("up", "--wait", "--no-build")
    seconds = time.monotonic() - started
    compose("down", "--volumes")
    return seconds


def _copy_sources(folder: Path) -> None:
    """What git tracks, as it stands in the working tree: the rebuild changes the copy only."""
    tracked = subprocess.check_output(["git", "ls-files"], cwd=_ROOT, text=True)
    for name in tracked.splitlines():
        if (_ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, folder / name)


if __name__ == "__main__":
    sys.exit(main())
