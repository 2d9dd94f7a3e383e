# Packs what of this release keeps the store, for the tests of later ones: `python -m
# tests.scenario.upgrade.pack_release`, once, with the release's tag checked out. What is packed is never changed again.
from __future__ import annotations

import io
import sys
import tarfile

from brokerd import __version__
from brokerd.edge.store import store  # noqa: F401 - what they import is packed
from tests.scenario.upgrade.releases import HERE, ROOT


def modules() -> list[str]:
    """The files of the store and of all that it imports."""
    files = (getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith("brokerd."))
    ours = (file.removeprefix(f"{ROOT}/") for file in files if file)
    return sorted({"brokerd/__init__.py", *(name for name in ours if name.startswith("brokerd/"))})


def main() -> None:
    target = HERE / "released" / f"brokerd-{__version__}.tar.xz"
    with tarfile.open(target, "x:xz", preset=9) as archive:
        for name in modules():
            content = (ROOT / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    print(target)


if __name__ == "__main__":
    main()
