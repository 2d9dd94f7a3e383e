# Installs files and keeps a list of them with their digests. A file that somebody has changed since is neither replaced
# nor removed. setup/install_files.py decides which files these are. Blocking.
from __future__ import annotations

import contextlib
import enum
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path


class FileOutcome(enum.StrEnum):
    WRITTEN = "written"
    REPLACED = "replaced by this version's"
    THERE = "there already"
    KEPT = "changed since it was installed, and kept"
    REMOVED = "removed"

    @property
    def changes(self) -> bool:
        return self not in (FileOutcome.THERE, FileOutcome.KEPT)


class Installed:
    """The installed files. All paths are below `root`. `dry`: report what would be done, and do nothing. Every method
    raises OSError."""

    def __init__(self, manifest: Path, root: Path, *, dry: bool) -> None:
        self._manifest, self._root, self._dry = manifest, root, dry
        self._known: dict[str, str] = {}
        self._folders: list[str] = []  # that were created, outer ones first
        self._put: set[str] = set()
        with contextlib.suppress(FileNotFoundError):
            listed = json.loads(self.at(manifest).read_text())
            self._known, self._folders = listed["files"], listed["folders"]

    def __bool__(self) -> bool:
        return bool(self._known)

    def at(self, path: Path) -> Path:
        return self._root / path.relative_to("/")

    def put(self, path: Path, text: str) -> FileOutcome:
        return self._place(path, _digest(text.encode()), lambda place: _write(place, text))

    def link(self, path: Path, target: Path) -> FileOutcome:
        if str(path) not in self._known and self.at(path).exists() and self.at(path).samefile(self.at(target)):
            return FileOutcome.THERE  # not ours, so an uninstallation leaves it
        return self._place(path, _link_to(target), lambda place: _link(place, target))

    def take_away(self, *, everything: bool) -> Iterator[tuple[Path, FileOutcome]]:
        """Remove installed files: those that this run has not put, or `everything`."""
        for name in sorted(self._known if everything else self._known.keys() - self._put):
            place, known = self.at(Path(name)), self._known.pop(name)
            if (found := _found(place)) == known:
                if not self._dry:
                    place.unlink()
                yield Path(name), FileOutcome.REMOVED
            elif found is not None:
                yield Path(name), FileOutcome.KEPT

    def save(self) -> None:
        """Write the list. When it is empty, remove it and the folders that were created for the files."""
        if self._dry:
            return
        if self._known:
            self._make_folders(self._manifest.parent)
            listed = {"files": self._known, "folders": self._folders}
            _write(self.at(self._manifest), json.dumps(listed, indent=1, sort_keys=True) + "\n")
            return
        self.at(self._manifest).unlink(missing_ok=True)
        while self._folders:
            with contextlib.suppress(OSError):  # the folder has other files in it
                self.at(Path(self._folders.pop())).rmdir()

    def _place(self, path: Path, digest: str, make: Callable[[Path], None]) -> FileOutcome:
        place, name = self.at(path), str(path)
        found = _found(place)
        self._put.add(name)
        if found is not None and found not in (digest, self._known.get(name)):
            return FileOutcome.KEPT
        self._known[name] = digest
        if found == digest:
            return FileOutcome.THERE
        if not self._dry:
            self._make_folders(path.parent)
            make(place)
        return FileOutcome.WRITTEN if found is None else FileOutcome.REPLACED

    def _make_folders(self, folder: Path) -> None:
        for each in reversed((folder, *folder.parents)):
            if not self.at(each).exists():
                self.at(each).mkdir()
                self.at(each).chmod(0o755)  # regardless of the umask: others have to read it
                self._folders.append(str(each))


def _found(place: Path) -> str | None:
    """The digest of what exists there, in the form of the list."""
    if place.is_symlink():
        return _link_to(place.readlink())
    return _digest(place.read_bytes()) if place.exists() else None


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _link_to(target: Path) -> str:
    return f"link:{target}"


def _write(place: Path, text: str) -> None:
    """Replace the file in one step: half a unit could mean something else."""
    beside = place.with_name(f".{place.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(0o644)
    beside.replace(place)


def _link(place: Path, target: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(target)
