# The package's own virtual environment, out of wheels: environment.py WHEELS DESTDIR PREFIX. It is used under PREFIX,
# and nothing in it knows where it was built.
import sys
from pathlib import Path

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile

CONFIGURATION = "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n"  # venv's; site reads it


def main(wheels: Path, destdir: Path, prefix: str) -> None:
    packages = f"{prefix}/lib/python3.11/site-packages"
    schemes = {"purelib": packages, "platlib": packages, "scripts": f"{prefix}/bin", "data": prefix}
    destination = SchemeDictionaryDestination(
        schemes, interpreter=f"{prefix}/bin/python3", script_kind="posix", destdir=str(destdir)
    )
    for wheel in sorted(wheels.glob("*.whl")):
        with WheelFile.open(wheel) as source:
            install(source, destination, additional_metadata={"INSTALLER": b"dpkg\n"})
    root = destdir / prefix.lstrip("/")
    (root / "pyvenv.cfg").write_text(CONFIGURATION)
    (root / "bin" / "python3").symlink_to("../../../bin/python3")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
