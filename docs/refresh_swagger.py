"""Copy Swagger UI from npm into the service: `python docs/refresh_swagger.py 5.35.0`.

npm verifies the checksum of the download. Script and style are stored compressed, as the service
sends them, together with licence, notice and version.
"""

import gzip
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "service" / "static" / "swagger"
PACKED = ("swagger-ui-bundle.js", "swagger-ui.css")
PLAIN = ("LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt")


def main() -> None:
    """Fetch a version, the latest by default, and write its files."""
    (version,) = sys.argv[1:] or ["latest"]
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"swagger-ui-dist@{version}"]
        packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)  # noqa: S603
        name = packed.stdout.split()[-1]
        with tarfile.open(Path(folder) / name) as archive:
            for file in (*PACKED, *PLAIN):
                member = archive.extractfile(f"package/{file}")
                if member is None:
                    sys.exit(f"error: {name} holds no {file}")
                data = member.read()
                if file in PACKED:
                    # No timestamp, so that the same version gives the same bytes.
                    (FOLDER / f"{file}.gz").write_bytes(gzip.compress(data, 9, mtime=0))
                else:
                    (FOLDER / file).write_bytes(data)
    found = name.removeprefix("swagger-ui-dist-").removesuffix(".tgz")
    (FOLDER / "VERSION").write_text(f"{found}\n")
    print(f"Swagger UI {found} is in {FOLDER.name}/; now run `make test-browser`")


if __name__ == "__main__":
    main()
