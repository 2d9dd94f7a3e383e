# The commands that read the audit log where it lies, for root and the daemon's user, with or without a daemon: verify
# says whether anybody changed it, tail shows it to people.
from __future__ import annotations

import contextlib

from brokerd.ctl.terminal import Failed, complain, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from brokerd.core.chain import Verified

FOUND = 1  # the exit code where something is wrong
ATTEMPTS, PAUSE = 5, 0.5  # a log that is written meanwhile is read again so often, after so many seconds
LOOK = 0.5  # seconds between looks with --follow
NOT_SHOWN = {"seal", "file begins"}
LATEST = 1e11  # Unix seconds; what is later is no time
FIRST = ("time", "event", "grant", "outcome", "who", "reason", "count")  # have their place in a line for people
CHAIN = {"seq", "prev", "first", "last"}  # are shown with --json alone


def audit(arguments: Namespace) -> int:
    """Verify or tail. Root does it as the user whose configuration it is, and then as the one whose log it is."""
    from pathlib import Path

    from brokerd.ctl.acting import as_owner_of
    from brokerd.installing import in_use

    path, _ = in_use(arguments.config)
    return as_owner_of(Path(path), lambda: _look_into(arguments))


def _look_into(arguments: Namespace) -> int:
    from brokerd.ctl.acting import as_owner_of

    with _explained():
        configuration, folder = _place(arguments)
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
    from brokerd.core.typed import ConfigError

    try:
        yield
    except ConfigError as error:
        raise Failed(plain(str(error))) from None
    except PermissionError as error:
        words = f"{plain(str(error.filename))} is not yours to read; be root or the user that brokerd runs as"
        raise Failed(words) from None


def verify(folder: Path, keys: list[bytes | str], socket: str | None) -> int:
    """Print everything that is wrong with the log; 1 where there is anything. `keys`: see _keys."""
    from time import sleep

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
        write(f"the newest {unsealed:,} lines await their seal: {plain(why or '')}")
    counts = ", ".join(f"{each.lines:,} lines in {name}" for name, each in found.items())
    write(f"{counts}: {f'{len(findings)} findings' if findings else 'unchanged since they were written'}")
    return FOUND if findings else 0


def _not_sealed(socket: str | None, folder: Path) -> str | None:
    """Have the brokerd whose log it is seal its newest lines. Why it has not, or None: then none should be without a
    seal, as where no brokerd runs."""
    from brokerd_client import Broker, BrokerError

    from brokerd.edge.lock import is_held

    if not is_held(folder):
        return None
    try:
        with Broker(socket) as broker:
            answer = broker.call("seal_audit")
    except BrokerError as error:
        return f"brokerd runs and could not be asked to seal them: {error.message}"
    return None if answer["sealed"] else str(answer["reason"])


def tail(folder: Path, arguments: Namespace) -> int:
    """Print the newest entries, and with --follow those that come."""
    from heapq import nlargest
    from time import sleep

    places: dict[str, tuple[int, int]] = {}
    wanted = (each for each in _entries(folder, places) if _is_wanted(each, arguments))
    newest = nlargest(arguments.number, wanted, _time)
    if not newest and arguments.event is not None and not arguments.follow:
        _name_events(folder, arguments.event)
    while True:
        for entry in sorted(newest, key=_time):
            write(_as_json(entry) if arguments.json else plain(_words(entry)))
        if not arguments.follow:
            return 0
        sleep(LOOK)
        newest = [each for each in _entries(folder, places) if _is_wanted(each, arguments)]


def _place(arguments: Namespace) -> tuple[Any, Path]:
    """The configuration, and the state directory of its brokerd."""
    from brokerd.config import load
    from brokerd.installing import in_use, state_in_use

    configuration = load(in_use(arguments.config)[0])
    return configuration, state_in_use(arguments.state_dir, arguments.config)


def _keys(configuration: Any) -> list[bytes | str]:
    """The keys that are configured, or why one could not be read; none: it is a passphrase."""
    from brokerd.core.typed import ConfigError
    from brokerd.installation import key_sources, read_key

    found: list[bytes | str] = []
    for source in key_sources(configuration):
        try:
            found.append(read_key(configuration.path, source))
        except ConfigError as error:
            found.append(plain(str(error)))
    return found


def _key(folder: Path, keys: list[bytes | str]) -> bytes:
    """The key that opens the store: the first of those, or what is derived of the passphrase. Raises Failed."""
    from brokerd.core.ports import StoreError
    from brokerd.edge.sealed import look

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
    raise Failed(f"{wrong}; without it nothing can be verified")


def _derived(folder: Path) -> bytes:
    """Raises Failed."""
    from brokerd.core.ports import StoreError
    from brokerd.core.secret import Secret
    from brokerd.ctl.keys import read_passphrase
    from brokerd.edge.passphrase import derive
    from brokerd.edge.sealed import passphrase_of

    try:
        return derive(Secret(read_passphrase(twice=False)), passphrase_of(folder))
    except StoreError as error:
        raise Failed(f"{plain(str(error))}; without its key nothing can be verified") from None


def _sizes(folder: Path) -> list[tuple[str, int]]:
    return [(path.name, path.stat().st_size) for _, _, path in _files(folder)]


def _files(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Series, number and path of every file, oldest first. Raises Failed."""
    from brokerd.edge.audit_file import FOLDER, SERIES, numbered

    for name in SERIES:
        try:
            yield from ((name, number, path) for number, path in numbered(folder / FOLDER, name))
        except (FileNotFoundError, NotADirectoryError):
            words = f"there is no audit log in {plain(str(folder))}; where brokerd has run: --config FILE"
            raise Failed(words) from None


def _verified(folder: Path, kek: bytes, *, awaited: bool) -> dict[str, Verified]:
    """Each series. Raises Failed."""
    from contextlib import suppress

    from brokerd.core.chain import verify as verified
    from brokerd.edge.audit_file import SERIES
    from brokerd.edge.sealed import look

    memory = look(folder, kek)  # first: what is written meanwhile is more than it remembers, never less

    def contents(series: str) -> Iterator[tuple[int, str, bytes]]:
        for name, number, path in _files(folder):
            if name == series:
                with suppress(FileNotFoundError):  # it made room meanwhile
                    yield number, path.name, path.read_bytes()

    return {name: verified(contents(name), name, memory.key, memory.head(name), awaited=awaited) for name in SERIES}


def _entries(folder: Path, places: dict[str, tuple[int, int]]) -> Iterator[Mapping[str, Any]]:
    """The entries behind `places` (by series: file number and offset), which move on."""
    from brokerd.core.chain import read

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
    """Whatever somebody else wrote into the log, it is shown."""
    time = entry.get("time")
    if not isinstance(time, int | float) or not 0 <= time < LATEST:
        entry["time"] = 0
    if type(entry.get("who", {})) is not dict:
        entry["who"] = {"user": entry["who"]}
    return entry


def _time(entry: Mapping[str, Any]) -> tuple[float, int]:
    return entry["time"], entry["seq"]


def _is_wanted(entry: Mapping[str, Any], arguments: Namespace) -> bool:
    who = entry.get("who", {})
    callers = (str(who.get("pid")), str(who.get("uid")), who.get("user"))
    about = arguments.grant in (None, entry.get("grant")) and arguments.event in (None, *_names(entry))
    return about and (arguments.caller is None or arguments.caller in callers)


def _names(entry: Mapping[str, Any]) -> tuple[object, object]:
    """What people call an entry: a denied `get` has both names."""
    return entry.get("event"), entry.get("outcome")


def _name_events(folder: Path, event: str) -> None:
    """Say which names there are, where it is none of them."""
    known = {name for entry in _entries(folder, {}) for name in _names(entry) if isinstance(name, str)}
    if event not in known:
        complain(f"the audit log has no event {plain(event)!r}; it has: {plain(', '.join(sorted(known)))}")


def _words(entry: Mapping[str, Any]) -> str:
    """An entry as a line for people: when, what, about which grant, how it ended, who, and the rest."""
    from datetime import datetime

    at = datetime.fromtimestamp(entry["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    who = dict(entry.get("who", {}))
    user, pid = who.pop("user", None), who.pop("pid", None)
    name = _word(user) if user else f"uid {who.get('uid')}"
    person = f"by {name}{f' (pid {pid})' if pid else ''}" if entry.get("who") else ""
    count = f"{entry['count']} times" if "count" in entry else ""
    rest = {**entry, **_flat({key: who[key] for key in who if key not in ("uid", "gids", "groups")})}
    others = [f"{key}={_word(value)}" for key, value in rest.items() if key not in FIRST and key not in CHAIN]
    grant, outcome, reason = (_word(entry[name]) if name in entry else "" for name in ("grant", "outcome", "reason"))
    return "  ".join(
        word for word in (at, str(entry.get("event")), grant, outcome, count, person, reason, *others) if word
    )


def _word(value: object) -> str:
    """In quotes where it could look like anything else in the line: names and paths are the callers' own."""
    from json import dumps

    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return (
        text
        if text and all("!" <= each <= "~" and each not in '"=\\' for each in text)
        else dumps(text, ensure_ascii=False)
    )


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value) if isinstance(value, dict) else {key: value}
    return found


def _as_json(entry: Mapping[str, Any]) -> str:
    from json import dumps

    return dumps(entry)  # in ASCII: whatever stands in the file steers no terminal
