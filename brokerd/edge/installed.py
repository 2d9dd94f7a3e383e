# Files that an installation puts in place, and the list of them with which it knows its own again: what somebody has
# changed since is neither written over nor taken away. Blocking; what the files are is not known here.
from __future__ import annotations

import contextlib
import enum
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path


class Done(enum.StrEnum):
    WRITTEN = "written"
    REPLACED = "replaced by this version's"
    THERE = "there already"
    KEPT = "not as it was put there, and kept so"
    REMOVED = "removed"

    @property
    def changes(self) -> bool:
        return self not in (Done.THERE, Done.KEPT)


class Installed:
    """All paths are below `root`. `dry`: say what would be done, and do nothing. Whatever is called raises OSError."""

    def __init__(self, manifest: Path, root: Path, *, dry: bool) -> None:
        self._manifest, self._root, self._dry = manifest, root, dry
        self._known: dict[str, str] = {}
        self._folders: list[str] = []  # that were made, outer ones first
        self._put: set[str] = set()
        with contextlib.suppress(FileNotFoundError):
            listed = json.loads(self.at(manifest).read_text())
            self._known, self._folders = listed["files"], listed["folders"]

    def __bool__(self) -> bool:
        return bool(self._known)

    def at(self, path: Path) -> Path:
        return self._root / path.relative_to("/")

    def put(self, path: Path, text: str) -> Done:
        return self._place(path, _digest(text.encode()), lambda place: _write(place, text))

    def link(self, path: Path, target: Path) -> Done:
        if str(path) not in self._known and self.at(path).exists() and self.at(path).samefile(self.at(target)):
            return Done.THERE  # by somebody else, and it stays when we go
        return self._place(path, _link_to(target), lambda place: _link(place, target))

    def take_away(self, *, everything: bool) -> Iterator[tuple[Path, Done]]:
        """What was put at some time and, unless it is `everything`, not now."""
        for name in sorted(self._known if everything else self._known.keys() - self._put):
            place, known = self.at(Path(name)), self._known.pop(name)
            if (found := _found(place)) == known:
                if not self._dry:
                    place.unlink()
                yield Path(name), Done.REMOVED
            elif found is not None:
                yield Path(name), Done.KEPT

    def save(self) -> None:
        """The list as it is now. With its last file the folders go that were made for them."""
        if self._dry:
            return
        if self._known:
            self._make_folders(self._manifest.parent)
            listed = {"files": self._known, "folders": self._folders}
            _write(self.at(self._manifest), json.dumps(listed, indent=1, sort_keys=True) + "\n")
            return
        self.at(self._manifest).unlink(missing_ok=True)
        while self._folders:
            with contextlib.suppress(OSError):  # somebody else's files are in it
                self.at(Path(self._folders.pop())).rmdir()

    def _place(self, path: Path, digest: str, make: Callable[[Path], None]) -> Done:
        place, name = self.at(path), str(path)
        found = _found(place)
        self._put.add(name)
        if found is not None and found not in (digest, self._known.get(name)):
            return Done.KEPT
        self._known[name] = digest
        if found == digest:
            return Done.THERE
        if not self._dry:
            self._make_folders(path.parent)
            make(place)
        return Done.WRITTEN if found is None else Done.REPLACED

    def _make_folders(self, folder: Path) -> None:
        for each in reversed((folder, *folder.parents)):
            if not self.at(each).exists():
                self.at(each).mkdir()
                self.at(each).chmod(0o755)  # whatever the umask is: others are to read this
                self._folders.append(str(each))


def _found(place: Path) -> str | None:
    """What is there, as the list says it."""
    if place.is_symlink():
        return _link_to(place.readlink())
    return _digest(place.read_bytes()) if place.exists() else None


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _link_to(target: Path) -> str:
    return f"link:{target}"


def _write(place: Path, text: str) -> None:
    """Whole or not at all: half a unit may be another one."""
    beside = place.with_name(f".{place.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(0o644)
    beside.replace(place)


def _link(place: Path, target: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(target)
