# The package's own virtual environment, out of wheels: environment.py WHEELS DESTDIR PREFIX. It is used under PREFIX,
# and nothing in it knows where it was built.
import io
import sys
from pathlib import Path

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.records import RecordEntry
from installer.sources import WheelFile
from installer.utils import Scheme

CONFIGURATION = "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n"  # venv's; site reads it
# The installer's own scripts import re, which takes half as long as the start of Python.
SCRIPT = (
    "#!{interpreter}\nimport sys\nfrom {module} import {name}\n\nif __name__ == '__main__':\n    sys.exit({call}())\n"
)


class Environment(SchemeDictionaryDestination):
    """Where the wheels go, with programs that begin at once."""

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:  # noqa: ARG002
        text = SCRIPT.format(interpreter=self.interpreter, module=module, name=attr.partition(".")[0], call=attr)
        with io.BytesIO(text.encode()) as stream:
            entry = self.write_to_fs(Scheme("scripts"), name, stream, is_executable=True)
        self._path_with_destdir(Scheme("scripts"), name).chmod(0o755)
        return entry


def main(wheels: Path, destdir: Path, prefix: str) -> None:
    packages = f"{prefix}/lib/python3.11/site-packages"
    schemes = {"purelib": packages, "platlib": packages, "scripts": f"{prefix}/bin", "data": prefix}
    destination = Environment(schemes, interpreter=f"{prefix}/bin/python3", script_kind="posix", destdir=str(destdir))
    for wheel in sorted(wheels.glob("*.whl")):
        with WheelFile.open(wheel) as source:
            install(source, destination, additional_metadata={"INSTALLER": b"dpkg\n"})
    root = destdir / prefix.lstrip("/")
    (root / "pyvenv.cfg").write_text(CONFIGURATION)
    (root / "bin" / "python3").symlink_to("../../../bin/python3")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
