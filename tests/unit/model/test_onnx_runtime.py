"""The library that multiplies reports to nobody."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def test_no_telemetry_is_begun(tmp_path: Path) -> None:
    """Where it is, the library keeps the number of its session in the temporary folder."""
    # In a CI job it would be off anyway.
    inherited = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("ORT_")}
    environment = {**inherited, "TMPDIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", "import model; model.load()"], cwd=ROOT, check=True, env=environment
    )
    assert list(tmp_path.iterdir()) == []
