# FILE.toml of `brokerctl files`: the [[file]] tables as checked values, all or nothing. It opens nothing but that file.
from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from brokerd.config.errors import Errors
from brokerd.config.toml_files import read_toml
from brokerd.core.files.contents import ENDS_WITH_NEWLINE, FORMATS, Contents
from brokerd.core.files.template import read_template
from brokerd.core.validation import ConfigError, check_one_of, convert, expected

MOST = 10_000  # files
MODE = re.compile(r"0?[0-7]{3}")
UNIT = re.compile(r"[A-Za-z0-9:_.\\][A-Za-z0-9:_.\\@-]*\.[a-z]+")
ON_REVOKE = ("remove", "empty")
ON_CHANGE = ("reload", "restart", "command")
EXAMPLE = 'expected [[file]] tables with path and grant, such as: [[file]] path = "/run/app/token" grant = "reports"'


class OnChangeTable(msgspec.Struct, forbid_unknown_fields=True):
    reload: str | None = None
    restart: str | None = None
    command: list[str] | None = None


class FileTable(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    grant: str
    scope: list[str] | None = None
    audience: str | None = None
    resource: str | None = None
    format: str | None = None
    template: str | None = None
    newline: bool | None = None
    mode: str | None = None
    group: str | None = None
    on_revoke: str = "remove"
    on_change: OnChangeTable | None = None


@dataclass(frozen=True, slots=True)
class OnChange:
    """What runs after a change. `verb` and `unit` for systemctl, or a `command`."""

    verb: str = ""
    unit: str = ""
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.verb} {self.unit}" if self.unit else self.command[0]


@dataclass(frozen=True, slots=True)
class Source:
    """Which token: the grant's own, or a downscoped one."""

    grant: str
    scope: tuple[str, ...] | None = None
    audience: str | None = None
    resource: str | None = None

    @property
    def is_own(self) -> bool:
        return self.scope is None and self.audience is None and self.resource is None


@dataclass(frozen=True, slots=True)
class TokenFile:
    """One file that holds a token. `empties`: on revocation it is emptied, not removed."""

    path: Path
    source: Source
    contents: Contents
    mode: int = 0o400
    group: str | None = None
    empties: bool = False
    on_change: OnChange | None = None
    number: int = 0  # of its table, for errors

    @property
    def key(self) -> str:
        return f"file[{self.number}]"


def read(path: Path) -> tuple[tuple[TokenFile, ...], Sequence[ConfigError]]:
    """The tables without mistakes, and all mistakes."""
    errors, found = Errors(), dict[Path, TokenFile]()
    raw = errors.tried(path, "", None, lambda _: read_toml(path))
    if raw is None:
        return (), errors
    for key in raw:
        if key != "file":
            errors.append(ConfigError("unknown table; known: [[file]]", key=key, file=str(path)))
    tables = errors.tried(path, "file", raw.get("file", []), lambda raw: convert(raw, list[Any]))
    if tables == [] and not errors:
        errors.append(ConfigError(EXAMPLE, file=str(path)))
    if len(tables or ()) > MOST:
        errors.append(ConfigError(f"expected at most {MOST} files, found {len(tables or ())}", file=str(path)))
        return (), errors
    for number, table in enumerate(tables or ()):
        file = errors.tried(path, f"file[{number}]", table, partial(_read_table, number))
        if file is not None and file.path in found:
            words = f"is the path of file[{found[file.path].number}] too; keep one of them"
            errors.append(ConfigError(words, key=f"{file.key}.path", file=str(path)))
        elif file is not None:
            found[file.path] = file
    return tuple(found.values()), errors


def _read_table(number: int, raw: Any) -> TokenFile:
    table = convert(raw, FileTable)
    name = table.path.rpartition("/")[2]
    if not table.path.startswith("/") or name in ("", ".", "..") or not table.path.isprintable():
        raise expected("the absolute path of a file", table.path, key="path")
    if not table.grant:
        raise expected("the name of a grant", table.grant, key="grant")
    for key in ("scope", "audience", "resource"):
        if (value := getattr(table, key)) is not None and (not value or "" in value):
            raise expected("a value; leave the key out for the grant's own token", value, key=key)
    check_one_of(table.on_revoke, ON_REVOKE, "on_revoke")
    return TokenFile(
        path=Path(os.path.normpath(table.path)),
        source=Source(table.grant, None if table.scope is None else tuple(table.scope), table.audience, table.resource),
        contents=_contents(table),
        mode=_mode(table),
        group=table.group,
        empties=table.on_revoke == "empty",
        on_change=None if table.on_change is None else _on_change(table.on_change),
        number=number,
    )


def _contents(table: FileTable) -> Contents:
    if table.template is not None:
        if table.format is not None:
            raise ConfigError("a file has a format or a template; remove one of them", key="format")
        try:
            return Contents("template", read_template(table.template), newline=bool(table.newline))
        except ConfigError as error:
            raise error.within("template") from None
    name = table.format or "token"
    check_one_of(name, FORMATS, "format")
    return Contents(name, None, ENDS_WITH_NEWLINE[name] if table.newline is None else table.newline)


def _mode(table: FileTable) -> int:
    """Nobody else can read a file with a token; a group can, if it is named."""
    if table.mode is None:
        return 0o400 if table.group is None else 0o440
    if not MODE.fullmatch(table.mode):
        raise expected('a mode such as "0400"', table.mode, key="mode")
    mode = int(table.mode, 8)
    if mode & 0o007:
        words = 'a mode without rights for everybody, such as "0440" with group = "NAME"'
        raise expected(words, table.mode, key="mode")
    if mode & 0o022 or not mode & 0o400:
        raise expected("a mode that lets its owner read, and no group write", table.mode, key="mode")
    return mode


def _on_change(table: OnChangeTable) -> OnChange:
    given = [key for key in ON_CHANGE if getattr(table, key) is not None]
    if len(given) != 1:
        words = f"expected one of {', '.join(ON_CHANGE)}, found {' and '.join(given) or 'none'}"
        raise ConfigError(words, key="on_change")
    verb = given[0]
    if table.command is not None:
        if not table.command or not table.command[0].startswith("/") or "\0" in "".join(table.command):
            found = table.command[0] if table.command else table.command
            raise expected("an absolute path first, then arguments", found, key="on_change.command")
        return OnChange(command=tuple(table.command))
    unit = getattr(table, verb)
    if not UNIT.fullmatch(unit):
        raise expected('the full name of a unit, such as "portal.service"', unit, key=f"on_change.{verb}")
    return OnChange(verb, unit)
