# The commands that read the audit log's files, for root and the daemon's user, with or without a daemon: verify says
# whether anybody has changed them, tail prints their entries.
from __future__ import annotations

import contextlib
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from datetime import datetime
from heapq import nlargest
from pathlib import Path
from time import sleep
from typing import Any

from brokerd_client import Broker, BrokerError

from brokerd.config.load import load
from brokerd.config.settings import Configuration
from brokerd.core.audit.chain import Verified, read
from brokerd.core.audit.chain import verify as verified
from brokerd.core.ports import StoreError
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.ctl.as_owner import as_owner_of
from brokerd.ctl.commands.keys import read_passphrase
from brokerd.ctl.terminal import Failed, complain, plain, write, write_json
from brokerd.edge.audit.files import FOLDER, SERIES, numbered
from brokerd.edge.store.lock import is_held
from brokerd.edge.store.passphrase import derive
from brokerd.edge.store.sealed_meta import look, passphrase_of
from brokerd.setup.installation import key_sources, read_key
from brokerd.setup.layout import in_use, state_in_use

FOUND = 1  # the exit code if something is wrong
ATTEMPTS, PAUSE = 5, 0.5  # how often, and after how many seconds, a log that has grown meanwhile is read again
LOOK = 0.5  # seconds between two reads with --follow
NOT_SHOWN = {"seal", "file begins"}
LATEST = 1e11  # Unix seconds; a larger number is not a time
FIRST = ("time", "event", "grant", "outcome", "who", "reason", "count")  # have a fixed place in a line
CHAIN = {"seq", "prev", "first", "last"}  # are shown with --json only


def audit(arguments: Namespace) -> int:
    """Verify or tail. As root, the configuration is read as its owner, and the log as the log's owner."""
    return as_owner_of(Path(in_use(arguments.config)[0]), lambda: _look_into(arguments))


def _look_into(arguments: Namespace) -> int:
    with _explained():
        configuration = load(in_use(arguments.config)[0])
        folder = state_in_use(arguments.state_dir, arguments.config)
        keys = _keys(configuration) if arguments.action == "verify" else []

    def look() -> int:
        with _explained():
            if arguments.action == "tail":
                return tail(folder, arguments)
            return verify(folder, keys, arguments.socket or configuration.daemon.socket)

    return as_owner_of(folder, look, is_state=True)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raises Failed."""
    try:
        yield
    except ConfigError as error:
        raise Failed(plain(str(error))) from None
    except PermissionError as error:
        words = f"you may not read {plain(str(error.filename))}; run this as root or as the user that brokerd runs as"
        raise Failed(words) from None


def verify(folder: Path, keys: list[bytes | str], socket: str | None) -> int:
    """Print everything that is wrong with the log. Returns 1 if anything is. `keys`: see _keys."""
    kek = b""
    why = _not_sealed(socket, folder)
    for _ in range(ATTEMPTS):
        before = _sizes(folder)
        kek = kek or _key(folder, keys)
        found = _verified(folder, kek, awaited=why is not None)
        findings = [finding for each in found.values() for finding in each.findings]
        if not findings or _sizes(folder) == before:
            break
        sleep(PAUSE)
    for finding in findings:
        write(plain(str(finding)))
    if unsealed := sum(each.unsealed for each in found.values() if why is not None):
        write(f"the newest {unsealed:,} lines have no seal yet: {plain(why or '')}")
    counts = ", ".join(f"{each.lines:,} lines in {name}" for name, each in found.items())
    write(f"{counts}: {f'{len(findings)} findings' if findings else 'unchanged since they were written'}")
    return FOUND if findings else 0


def _not_sealed(socket: str | None, folder: Path) -> str | None:
    """Ask the brokerd that writes the log to seal its newest lines. Returns why it did not. None: every line should
    have a seal, which is also so if no brokerd runs."""
    if not is_held(folder):
        return None
    try:
        with Broker(socket) as broker:
            answer = broker.call("seal_audit")
    except BrokerError as error:
        return f"brokerd runs, but asking it to seal them failed: {error.message}"
    return None if answer["sealed"] else str(answer["reason"])


def tail(folder: Path, arguments: Namespace) -> int:
    """Print the newest entries, and with --follow each new one."""
    places: dict[str, tuple[int, int]] = {}
    selected = (each for each in _entries(folder, places) if _is_selected(each, arguments))
    newest = nlargest(arguments.number, selected, _time)
    if not newest and arguments.event is not None and not arguments.follow:
        _name_events(folder, arguments.event)
    while True:
        for entry in sorted(newest, key=_time):
            write_json(entry) if arguments.json else write(plain(_words(entry)))
        if not arguments.follow:
            return 0
        sleep(LOOK)
        newest = [each for each in _entries(folder, places) if _is_selected(each, arguments)]


def _keys(configuration: Configuration) -> list[bytes | str]:
    """The configured keys; for one that could not be read, why (text). Empty: the key is a passphrase."""
    found: list[bytes | str] = []
    for source in key_sources(configuration):
        try:
            found.append(read_key(configuration.path, source))
        except ConfigError as error:
            found.append(plain(str(error)))
    return found


def _key(folder: Path, keys: list[bytes | str]) -> bytes:
    """The key that opens the store: the first of `keys` that does, or the one from the passphrase. Raises Failed."""
    wrong = ""
    for kek in keys or [_derived(folder)]:
        if isinstance(kek, str):
            raise Failed(kek)
        try:
            look(folder, kek)
        except StoreError as error:
            wrong = wrong or plain(str(error))
        else:
            return kek
    raise Failed(f"{wrong}; without the key the log cannot be verified")


def _derived(folder: Path) -> bytes:
    """Raises Failed."""
    try:
        return derive(Secret(read_passphrase(twice=False)), passphrase_of(folder))
    except StoreError as error:
        raise Failed(f"{plain(str(error))}; without the key the log cannot be verified") from None


def _sizes(folder: Path) -> list[tuple[str, int]]:
    return [(path.name, path.stat().st_size) for _, _, path in _files(folder)]


def _files(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Series, number and path of every file, oldest first. Raises Failed."""
    for name in SERIES:
        try:
            yield from ((name, number, path) for number, path in numbered(folder / FOLDER, name))
        except (FileNotFoundError, NotADirectoryError):
            words = f"there is no audit log in {plain(str(folder))}; to name another configuration: --config FILE"
            raise Failed(words) from None


def _verified(folder: Path, kek: bytes, *, awaited: bool) -> dict[str, Verified]:
    """Each series. Raises Failed."""
    memory = look(folder, kek)  # read first, so that lines written meanwhile are newer than what the store remembers

    def contents(series: str) -> Iterator[tuple[int, str, bytes]]:
        for name, number, path in _files(folder):
            if name == series:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile to make room
                    yield number, path.name, path.read_bytes()

    return {name: verified(contents(name), name, memory.key, memory.head(name), awaited=awaited) for name in SERIES}


def _entries(folder: Path, places: dict[str, tuple[int, int]]) -> Iterator[Mapping[str, Any]]:
    """The entries after `places` (for each series: file number and offset), which are then moved to the end."""
    for name, number, path in _files(folder):
        file, offset = places.get(name, (0, 0))
        if number < file:
            continue
        with path.open("rb") as opened:
            opened.seek(offset if number == file else 0)
            whole = opened.read().rpartition(b"\n")[0]
            places[name] = (number, (offset if number == file else 0) + len(whole) + bool(whole))
        for line in whole.split(b"\n"):
            entry = read(line)
            if entry is not None and str(entry.get("event")) not in NOT_SHOWN:
                yield _in_form(entry)


def _in_form(entry: dict[str, Any]) -> dict[str, Any]:
    """Make the entry printable, whatever somebody else has written to the log."""
    time = entry.get("time")
    if not isinstance(time, int | float) or not 0 <= time < LATEST:
        entry["time"] = 0
    if type(entry.get("who", {})) is not dict:
        entry["who"] = {"user": entry["who"]}
    return entry


def _time(entry: Mapping[str, Any]) -> tuple[float, int]:
    return entry["time"], entry["seq"]


def _is_selected(entry: Mapping[str, Any], arguments: Namespace) -> bool:
    who = entry.get("who", {})
    callers = (str(who.get("pid")), str(who.get("uid")), who.get("user"))
    about = arguments.grant in (None, entry.get("grant")) and arguments.event in (None, *_names(entry))
    ids = (entry.get("request_id"), entry.get("provider_request_id"))
    return about and arguments.request_id in (None, *ids) and (arguments.caller is None or arguments.caller in callers)


def _names(entry: Mapping[str, Any]) -> tuple[object, object]:
    """The names that --event takes: a denied `get` has two."""
    return entry.get("event"), entry.get("outcome")


def _name_events(folder: Path, event: str) -> None:
    """If no entry has this name, list the names that there are."""
    known = {name for entry in _entries(folder, {}) for name in _names(entry) if isinstance(name, str)}
    if event not in known:
        complain(f"the audit log has no event {plain(event)!r}; it has: {plain(', '.join(sorted(known)))}")


def _words(entry: Mapping[str, Any]) -> str:
    """An entry as a line: time, event, grant, outcome, who, and the rest."""
    at = datetime.fromtimestamp(entry["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    who = dict(entry.get("who", {}))
    user, pid = who.pop("user", None), who.pop("pid", None)
    name = _word(user) if user else f"uid {who.get('uid')}"
    person = f"by {name}{f' (pid {pid})' if pid else ''}" if entry.get("who") else ""
    count = f"{entry['count']} times" if "count" in entry else ""
    rest = {**entry, **_flat({key: who[key] for key in who if key not in ("uid", "gids", "groups")})}
    others = [f"{key}={_word(value)}" for key, value in rest.items() if key not in FIRST and key not in CHAIN]
    grant, outcome, reason = (_word(entry[name]) if name in entry else "" for name in ("grant", "outcome", "reason"))
    words = (at, str(entry.get("event")), grant, outcome, count, person, reason, *others)
    return "  ".join(filter(None, words))


def _word(value: object) -> str:
    """In quotes if it could be mistaken for another part of the line: callers choose names and paths."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    is_plain = text and all("!" <= each <= "~" and each not in '"=\\' for each in text)
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value) if isinstance(value, dict) else {key: value}
    return found
