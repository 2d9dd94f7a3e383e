# Somebody who can read and write the fleet's keys in etcd, and has not the key that they are sealed with.
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf, nan

import msgspec

from brokerd.core.fleet.etcd import Pair, Put
from brokerd.core.fleet.layout import FleetKeys, RecordPlace
from tests.scenario.fleet.machines import Fleet
from tests.scenario.laws.world import WALL

KEYS = FleetKeys("prod")
MOMENT = (WALL, 0.0, "boot-0", True)
ABOUT = {"host": "web-0", "machine": "web-0", "instance": "00", "write": b"", "release": "1.0"}
FORGED: dict[str, dict[str, object]] = {
    "record": {"generation": 10**9, "number": 10**9, "sealed": b"\x01\x00\x00\x00\x01" + bytes(99), "history": b""},
    "journal": {"generation": 1, "answer_within": inf},
    "claim": {},
    "breaker": {"failures": 99, "shut_until": (WALL + 300, 300.0, "boot-0", True)},
    "member": {"schema": 1, "machine": "evil"},
    "meta": {"schema": 1, "usable_by": 1, "store": "evil", "cluster": 1, "epoch": 99, "proof": bytes(99)},
    "key": {},
}


def forged(kind: str, **changes: object) -> bytes:
    return msgspec.msgpack.encode(ABOUT | {"written": MOMENT} | FORGED[kind] | changes)


def sealed_looks(kind: str, number: int = 1) -> bytes:
    """In the form of what a host writes under that data key."""
    return b"\x01" + number.to_bytes(4, "big") + bytes(12) + forged(kind)


Value = Callable[[str], bytes]
VALUES: dict[str, Value] = {
    "empty": lambda _: b"",
    "text": lambda _: b"hunter2",
    "forged": forged,
    "sealed": sealed_looks,
    "sealed-under-another-key": lambda kind: sealed_looks(kind, 7),
    "deep": lambda kind: forged(kind)[:-1] + b"\x91" * 200_000,
    "deep-field": lambda kind: msgspec.msgpack.encode({**ABOUT, "x": msgspec.Raw(b"\x91" * 100_000 + b"\xc0")}),
    "announced": lambda _: b"\xdf\xff\xff\xff\xff",
    "huge": lambda kind: forged(kind) + bytes(8 << 20),
    "nan": lambda kind: forged(kind, written=(nan, nan, "boot-0", True), answer_within=nan),
    "inf": lambda kind: forged(kind, written=(inf, -inf, "boot-0", True), answer_within=-inf),
    "far": lambda kind: forged(kind, written=(1e300, -1e300, "boot-0", True)),
    "terminal": lambda kind: forged(kind, host="\x1b[2Jhunter2\n"),
}


@dataclass
class Attacker:
    fleet: Fleet

    @property
    def pairs(self) -> dict[bytes, Pair]:
        return dict(self.fleet.cluster.server.pairs)

    def write(self, changes: dict[bytes, bytes | None]) -> None:
        """In one transaction."""
        self.fleet.cluster.server.transact({}, {key: None if it is None else Put(it) for key, it in changes.items()})

    def put(self, key: bytes, value: bytes) -> None:
        self.write({key: value})

    def delete(self, keys: Iterable[bytes]) -> None:
        self.write(dict.fromkeys(keys))

    def of(self, *kinds: str) -> dict[bytes, bytes]:
        """What there is of those kinds, as it could be put back later."""
        return {key: pair.value for key, pair in self.pairs.items() if KEYS.kind(key)[0] in kinds}

    def key(self, kind: str, place: RecordPlace) -> bytes:
        found = {"record": KEYS.record(place), "journal": KEYS.journal(place), "claim": KEYS.claim(place)}
        found |= {"breaker": KEYS.breaker("idp"), "member": KEYS.member("web-0"), "meta": KEYS.meta}
        return found.get(kind) or KEYS.data_key(1)
