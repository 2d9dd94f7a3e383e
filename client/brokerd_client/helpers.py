# Which grant belongs to which address: helpers.toml, which every credential helper and the keyring backend read.
# An address is compared by its parts, so that a look-alike host, a port or a user in a URL never matches.
from __future__ import annotations

import os
import stat
import tomllib  # it needs typing and re; pathlib would cost some milliseconds more
from re import fullmatch
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = "/etc/brokerd/helpers.toml"
PORTS = {"https": 443, "http": 80}
LOOPBACK = r"localhost|127(\.\d{1,3}){3}|::1"
KEYS = ("url", "grant", "username")
HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
IPV6 = frozenset("0123456789abcdef:.")
ESCAPED = ("%5c", *(f"%2{digit}" for digit in "123456789abcdef"))  # of a path: servers disagree on what they are
EXAMPLE = 'expected [[use]] tables such as:\n  [[use]]\n  url = "https://git.example/*"\n  grant = "git"'


class HelpersError(Exception):
    """helpers.toml cannot be used. One line per fault: the file, the table, what was expected and what was found."""


class Address(NamedTuple):
    """A URL by its parts. `path` is decoded; None where a program did not say it (git asks for whole hosts)."""

    scheme: str
    host: str
    port: int
    path: str | None


class Use(NamedTuple):
    """One [[use]] table. `path` ends with "*" where it stands for all that begins so."""

    scheme: str
    host: str
    port: int
    path: str
    grant: str
    username: str | None = None

    def matches(self, address: Address) -> bool:
        if (self.scheme, self.host, self.port) != (address.scheme, address.host, address.port):
            return False
        if address.path is None:
            return self.path == "/*"
        if self.path.endswith("*"):
            return address.path.startswith(self.path[:-1]) or address.path == self.path[:-2]
        return address.path == self.path


def files() -> tuple[str, ...]:
    """Where helpers.toml may be: the user's own, then the machine's. BROKERD_HELPERS names another one instead."""
    if named := os.environ.get("BROKERD_HELPERS"):
        return (named,)
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - pathlib is slow
    return f"{config}/brokerd/helpers.toml", SYSTEM


def look_up(address: Address | None) -> Use | None:
    """The first table of all files that is about the address. Raises HelpersError."""
    return next((use for path in files() if (use := find(address, read_uses((path,))))), None)


def read_uses(paths: tuple[str | Path, ...] | None = None) -> list[Use]:
    """The tables of all files that exist, in their order. Raises HelpersError."""
    found: list[Use] = []
    for path in map(str, files() if paths is None else paths):
        try:
            tables = tomllib.loads(_read(path))
        except FileNotFoundError:
            if path == os.environ.get("BROKERD_HELPERS"):
                raise HelpersError(f"{path}: there is no such file; BROKERD_HELPERS names it") from None
            continue
        except PermissionError:
            raise HelpersError(f"{path}: you may not read it{_remedy(path)}") from None
        except (OSError, ValueError) as error:
            raise HelpersError(f"{path}: cannot be read as TOML: {error}") from None
        uses = tables.pop("use", [])
        if tables or not isinstance(uses, list):
            raise HelpersError(f"{path}: {EXAMPLE}; found {', '.join(sorted(tables)) or 'use, which is no list'}")
        found += [_use(f"{path}: [[use]] number {number}", table) for number, table in enumerate(uses, 1)]
    return found


def find(address: Address | None, uses: list[Use]) -> Use | None:
    """The first table that is about the address. None: there is none, or the address could not be read."""
    return next((use for use in uses if address is not None and use.matches(address)), None)


def address_of(url: str) -> Address | None:
    """The parts of a URL as a client means it. None where its parts could be read in two ways, or it has none."""
    if "://" not in url:
        url = f"https://{url}"
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in PORTS or not host or not any(frozenset(host) <= known for known in (HOST, IPV6)):
        return None
    port = PORTS[parts.scheme] if port is None else port
    return Address(parts.scheme, host.rstrip("."), port, _path(parts.path))


def _path(path: str) -> str | None:
    """The path, if every server would take it for the same one; else what only a table of the whole host matches."""
    plain = unquote(path)
    names = [each.partition(";")[0] for each in plain.split("/")[1:]]  # for some servers "..;x" is ".."
    odd = (
        "" in names[:-1]
        or not {".", ".."}.isdisjoint(names)
        or not plain.isprintable()
        or not {*"\\\ufffd"}.isdisjoint(plain)
        or any(each in path.lower() for each in ESCAPED)
    )
    return "" if odd else plain or "/"


def _read(path: str) -> str:
    """The file's text, if nobody but root and this user can change it. Raises HelpersError, OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise HelpersError(f"{path}: expected a regular file; move it away and write the file again")
        folder = os.path.dirname(path) or "."  # noqa: PTH120
        for name, each in ((path, found), (folder, os.stat(folder))):  # noqa: PTH116
            _refuse_what_others_change(name, each)
        return file.read().decode()


def _refuse_what_others_change(path: str, found: os.stat_result) -> None:
    """Who can change the file decides where tokens are sent. Raises HelpersError."""
    if found.st_uid not in (0, os.geteuid()):
        raise HelpersError(
            f"{path}: the user {found.st_uid} owns it, and could have your tokens sent elsewhere; "
            "expected root or yourself as its owner; write the file in a folder of your own"
        )
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX  # as /tmp: others cannot replace the file
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        raise HelpersError(
            f"{path}: others may write to it, and could have your tokens sent elsewhere; "
            f"make it writable for its owner only, with mode {stat.S_IMODE(found.st_mode) & ~0o022:04o}"
        )


def _remedy(path: str) -> str:
    if path != SYSTEM:
        return ""
    folder = os.path.dirname(path)  # noqa: PTH120
    command = f"chmod o+r {path}" if os.access(folder, os.X_OK) else f"chmod o+x {folder}"
    return f"; to fix, as root: {command}"


def _use(where: str, table: object) -> Use:
    texts = isinstance(table, dict) and all(isinstance(each, str) and each.isprintable() for each in table.values())
    if not isinstance(table, dict) or not texts or not all(table.values()):
        words = "expected a table of texts of one line, with the keys url, grant and perhaps username"
        raise HelpersError(f"{where}: {words}")
    if unknown := sorted(set(table) - set(KEYS)):
        raise HelpersError(f"{where}: unknown key {unknown[0]}; known: {', '.join(KEYS)}")
    if missing := [key for key in KEYS[:2] if key not in table]:
        raise HelpersError(f"{where}: the key {missing[0]} is missing")
    url = table["url"]
    address = address_of(url) if "://" in url else None
    if address is None or not address.path or "@" in url or "?" in url or "#" in url or "*" in url[:-1]:
        words = 'expected https://HOST/PATH without user, query and fragment; "*" may stand at its end'
        raise HelpersError(f"{where}: url: {words}; found {url!r}")
    if address.scheme == "http" and not fullmatch(LOOPBACK, address.host):
        words = "expected https; http would send the token unencrypted, so it is for this machine only (127.0.0.1)"
        raise HelpersError(f"{where}: url: {words}; found {url!r}")
    path = address.path
    if path.endswith("*") and not path.endswith("/*"):
        raise HelpersError(f'{where}: url: expected "/*" at its end, or "*" would match the beginning of a name too')
    return Use(address.scheme, address.host, address.port, path, table["grant"], table.get("username"))
