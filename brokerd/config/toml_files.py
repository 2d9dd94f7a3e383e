# Reads the TOML files and collects their tables, each with its file, for errors.
from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli

from brokerd.config import toml_pieces
from brokerd.config.errors import Errors
from brokerd.core.access.policy import LONGEST_NAME
from brokerd.core.file_remedies import change
from brokerd.core.validation import ConfigError, convert, expected

DEFAULT_CONFIG = "/etc/brokerd/brokerd.toml"
MISSING = "there is no such file; name another with --config FILE, or create it with: brokerctl add"
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")


@contextmanager
def within(file: Path, key: str) -> Iterator[None]:
    """Adds file and key to every ConfigError raised inside."""
    try:
        yield
    except ConfigError as error:
        raise error.within(key, str(file)) from None


class Tables:
    """The tables of all files, each with its file. A name is in one file only."""

    def __init__(self) -> None:
        self.daemon: list[tuple[Path, Any]] = []
        self.sockets: dict[str, list[tuple[Path, Any]]] = {"http": [], "credentials": []}
        self.store: list[tuple[Path, Any]] = []
        self.named: dict[str, dict[str, tuple[Path, Any]]] = {"providers": {}, "grants": {}}
        self.listed: dict[str, list[tuple[Path, int, Any]]] = {"allow": [], "on_event": []}
        self.exposed: dict[Path, ConfigError] = {}  # files that everybody can read, and why that may be a mistake

    def take(self, file: Path, errors: Errors) -> Path:
        """The file's tables; mistakes in one of them are kept in `errors`. Raises ConfigError for the whole file."""
        raw = read_toml(file, MISSING, pack=True)
        refuse_open(file)
        if exposed := exposure(file):
            self.exposed[file] = exposed
        for key in raw:
            if key not in ("daemon", "store", *self.sockets, *self.named, *self.listed):
                known = "[daemon], [http], [credentials], [store], [providers.…], [grants.…], [[allow]], [[on_event]]"
                errors.append(ConfigError(f"unknown table; known: {known}", key=key, file=str(file)))
        if "daemon" in raw:
            self.daemon.append((file, raw["daemon"]))
        if "store" in raw:
            self.store.append((file, raw["store"]))
        for name, found in self.sockets.items():
            if name in raw:
                found.append((file, raw[name]))
        for kind in self.named:
            tables = errors.tried(file, kind, raw.get(kind, {}), lambda raw: convert(raw, dict[str, Any]))
            for name, table in (tables or {}).items():
                self._take_named(file, kind, name, table, errors)
        for name, taken in self.listed.items():
            listed = errors.tried(file, name, raw.get(name, []), lambda raw: convert(raw, list[Any]))
            taken += [(file, number, each) for number, each in enumerate(listed or [])]
        return file

    def _take_named(self, file: Path, kind: str, name: str, table: Any, errors: Errors) -> None:
        taken = self.named[kind]
        if not NAME.fullmatch(name):
            words = "a name of up to 128 letters, digits, dots, dashes and underscores"
            errors.append(expected(words, name, key=kind).within("", str(file)))
        elif name in taken:
            words = f"is defined in {taken[name][0]} too; keep one of them"
            errors.append(ConfigError(words, key=f"{kind}.{name}", file=str(file)))
        else:
            taken[name] = (file, table)


def drop_ins(main: Path) -> list[Path]:
    """The files of conf.d beside the main file. A folder that cannot be read is an error: its grants would vanish."""
    folder = main.parent / "conf.d"
    try:
        return sorted(each for each in folder.iterdir() if each.name.endswith(".toml"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}{_closed(error)}", file=str(folder)) from None


def is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is too long, or a folder that we may not read
        return False


def exposure(file: Path) -> ConfigError | None:
    """The mistake if a secret is written in that file itself; None if not everybody can read the file."""
    mode = file.stat().st_mode
    if not mode & stat.S_IROTH:
        return None
    remedy = change("chmod o-r", str(file.resolve()), mode, "write the secret to a file of its own, { file = PATH }")
    return ConfigError(f"this file contains a secret, and everybody can read it; to fix: {remedy}")


def refuse_open(file: Path) -> None:
    """Raises ConfigError if everybody on this machine can write the file or add files beside it: brokerd runs the
    commands in them. That includes /tmp, where the first comer could make conf.d."""
    for path in (file, file.parent):
        if (mode := path.stat().st_mode) & stat.S_IWOTH:
            instead = "move it to a directory that only its owner can change"
            remedy = change("chmod o-w", str(path.resolve()), mode, instead)
            raise ConfigError(f"everybody on this machine can write to {path}; to fix: {remedy}", file=str(file))


def _closed(error: OSError) -> str:
    return "; run this as root, or as the user that brokerd runs as" if isinstance(error, PermissionError) else ""


def read_toml(
    file: Path, missing: str = "there is no such file; name one that exists", *, pack: bool = False
) -> dict[str, Any]:
    """The tables of a file; `missing`: the message if it does not exist. `pack`: tables of grants may be packed
    (toml_pieces.py). Raises ConfigError."""
    try:
        return toml_pieces.loads(file.read_text(encoding="utf-8"), pack=pack)
    except FileNotFoundError:
        raise ConfigError(missing, file=str(file)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}{_closed(error)}", file=str(file)) from None
    except (tomli.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"this is not TOML: {error}", file=str(file)) from None
    except ValueError:  # Python's own limit, with a message for programmers
        raise ConfigError("this is not TOML: a number has thousands of digits", file=str(file)) from None
