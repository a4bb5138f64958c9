"""Copy Swagger UI from npm into the service: `python docs/refresh_swagger.py 5.35.0`.

npm verifies the checksum of the download. Licence, notice and version are stored beside the files.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "service" / "static" / "swagger"
FILES = (
    "swagger-ui-bundle.js",
    "swagger-ui-bundle.js.LICENSE.txt",
    "swagger-ui.css",
    "LICENSE",
    "NOTICE",
)


def main() -> None:
    """Fetch a version, the latest by default, and write its files."""
    (version,) = sys.argv[1:] or ["latest"]
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"swagger-ui-dist@{version}"]
        packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)  # noqa: S603
        name = packed.stdout.split()[-1]
        with tarfile.open(Path(folder) / name) as archive:
            for file in FILES:
                member = archive.extractfile(f"package/{file}")
                if member is None:
                    sys.exit(f"error: {name} holds no {file}")
                (FOLDER / file).write_bytes(member.read())
    fetched = name.removeprefix("swagger-ui-dist-").removesuffix(".tgz")
    (FOLDER / "VERSION").write_text(f"{fetched}\n")
    print(f"Swagger UI {fetched} is in {FOLDER.name}/; now run `make test-browser`")


if __name__ == "__main__":
    main()
