# What a large fleet costs etcd, the providers and each host, counted: python -m tests.stress.simulation.fleet.scale.
# The values are brokerd's own, written to the servers of the model of etcd; the hosts are only what decides how much
# they ask: who renews, when, and what all others are told.
from __future__ import annotations

import argparse
import heapq
import tracemalloc
from dataclasses import dataclass
from random import Random

from brokerd.core.fleet.etcd import ABSENT, Pair, Put
from brokerd.core.fleet.layout import ClaimValue, FleetKeys, JournalValue, MemberValue, RecordPlace, RecordValue
from brokerd.core.fleet.renewers import Renewers
from brokerd.core.grant.record import Record
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet.lease import EVERY
from brokerd.edge.store.sealed_record import encoded
from tests.stress.simulation.fleet.model_server import Server

SHARE, SPREAD = 2 / 3, 0.1  # of a life after which a token is renewed, and by how much that differs
TAKES = 1.0  # seconds for an exchange
TOKEN = 1_000  # characters of an access token, as a JWT has them
SEAL = 64  # bytes that sealing adds
BASE64 = 4 / 3  # in the answers of etcd's JSON gateway


@dataclass
class Counted:
    """In all the time: transactions, events that each watch was told and their bytes, requests to the providers, and of
    these the most in a second. `conflicts`: transactions that another host had made already."""

    transactions: int = 0
    conflicts: int = 0
    events: int = 0
    bytes: int = 0
    requests: int = 0
    most_requests: int = 0
    most_by_one_host: int = 0


def record_of(grant: str, at: float) -> Record:
    """One with a token, the one before that, which still lives, and a refresh token."""
    moment = Moment(1_800_000_000.0 + at, at, "0" * 36)
    token = AccessToken(Secret("t" * TOKEN), "Bearer", moment, 3_600.0, 0.5)
    return Record(
        grant,
        7,
        access_token=token,
        refresh_token=RefreshToken(Secret("r" * 200), moment, None, 0.5),
        superseded=(token,),
        changed=moment,
    )


class Fleet:
    """`hosts` hosts that share `grants` grants whose tokens live `lifetime` seconds."""

    def __init__(self, hosts: int, grants: int, lifetime: float, random: Random) -> None:
        self.now, self.lifetime, self._random = 0.0, lifetime, random
        self.keys, self.counted = FleetKeys("prod"), Counted()
        self.server = Server(lambda: self.now)
        self.hosts = [f"web-{number}" for number in range(hosts)]
        self.places = [RecordPlace(f"grant-{number}", "f" * 64) for number in range(grants)]
        renewers = Renewers(self.hosts)
        self._renewers = {place: renewers.first(place.grant) or "" for place in self.places}
        self._sealed = b"s" * (len(encoded(record_of("grant-1000", 0.0))) + SEAL)
        self._by_host: dict[str, int] = {}
        for host in self.hosts:
            member = MemberValue(**self._about(host), release="2.0.0", schema=1, instance="i" * 16)
            self.server.transact({}, {self.keys.member(host): Put(member.encoded())})
        for place in self.places:
            self.server.transact({}, {self.keys.record(place): Put(self._record(self.hosts[0]))})

    def run(self, seconds: float) -> Counted:
        """From a fleet in which the age of each token is another one."""
        due = [(self._random.random() * self._delay(), number) for number in range(len(self.places))]
        heapq.heapify(due)
        in_second: dict[int, int] = {}
        while due[0][0] < seconds:
            self.now, number = due[0]
            place = self.places[number]
            host = self._renewers[place]
            self._exchange(place, host)
            in_second[int(self.now)] = in_second.get(int(self.now), 0) + 1
            self._by_host[host] = self._by_host.get(host, 0) + 1
            heapq.heapreplace(due, (self.now + TAKES + self._delay(), number))
        self.counted.most_requests = max(in_second.values())
        self.counted.most_by_one_host = max(self._by_host.values())
        return self.counted

    def memory(self) -> int:
        """Bytes that a host needs for its view of etcd."""
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        found = self.server.read_prefix(self.keys.root).pairs
        kept = {bytes(bytearray(key)): _copied(pair) for key, pair in found.items()}
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert kept
        return used

    def size(self) -> int:
        """Bytes that a host reads when it starts."""
        return sum(_bytes(key, pair.value) for key, pair in self.server.pairs.items())

    def _delay(self) -> float:
        return self.lifetime * (SHARE + SPREAD * (self._random.random() - 0.5))

    def _exchange(self, place: RecordPlace, host: str) -> None:
        """The claim, the request, the outcome."""
        keys, about = self.keys, {**self._about(host), "instance": "i" * 16, "write": b"w" * 16}
        record, claim, row = keys.record(place), keys.claim(place), keys.journal(place)
        begun = {
            claim: Put(ClaimValue(**about).encoded()),
            row: Put(JournalValue(**about, generation=7, answer_within=360.0).encoded()),
        }
        self._transact({record: self.server.pairs[record].modified, claim: ABSENT, row: ABSENT}, begun)
        self.counted.requests += 1
        fence = self.server.pairs[row].modified
        ended = {record: Put(self._record(host)), row: None, claim: None}
        self._transact({record: self.server.pairs[record].modified, row: fence}, ended)

    def _transact(self, expected: dict[bytes, int], changes: dict[bytes, Put | None]) -> None:
        ended = self.server.transact(expected, changes)
        self.counted.transactions += 1
        self.counted.conflicts += not ended.done
        self.counted.events += len(changes)
        self.counted.bytes += sum(_bytes(key, put.value if put else b"") for key, put in changes.items())
        self.server.compact()

    def _record(self, host: str) -> bytes:
        value = RecordValue(**self._about(host), generation=7, sealed=self._sealed, history=b"h" * 400, write=b"w" * 16)
        return value.encoded()

    def _about(self, host: str) -> dict[str, object]:
        return {"host": host, "machine": "m" * 32, "written": Moment(1_800_000_000.0 + self.now, self.now, "0" * 36)}


def _bytes(key: bytes, value: bytes) -> int:
    """Of one event in an answer: key and value, and about so much around them."""
    return round((len(key) + len(value)) * BASE64) + 120


def _copied(pair: Pair) -> Pair:
    return Pair(pair.key, bytes(bytearray(pair.value)), pair.modified, pair.lease)


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m tests.stress.simulation.fleet.scale")
    made.add_argument("--hosts", type=int, default=1_000)
    made.add_argument("--grants", type=int, default=10_000)
    arguments = made.parse_args()
    hosts, grants = arguments.hosts, arguments.grants
    print(f"{hosts} hosts, {grants} grants; {hosts / EVERY:.0f} keep-alives and as many reads a second")
    for lifetime in (300.0, 3_600.0, 43_200.0):
        fleet = Fleet(hosts, grants, lifetime, Random(1))
        seconds = 2 * lifetime
        found = fleet.run(seconds)
        events, size = found.events / seconds, found.bytes / seconds
        print(
            f"tokens of {lifetime:.0f} s: {found.requests / seconds:.2f} requests to providers a second "
            f"(at most {found.most_requests}), {found.transactions / seconds:.2f} transactions, "
            f"{found.conflicts} conflicts; each watch {events:.1f} events and {size / 1e3:.1f} kB a second, "
            f"all {events * hosts:,.0f} and {size * hosts / 1e6:.1f} MB; most renewals by one host: "
            f"{found.most_by_one_host} of {found.requests}"
        )
    print(f"a start reads {fleet.size() / 1e6:.0f} MB and keeps {fleet.memory() / 1e6:.0f} MB of it in memory")


if __name__ == "__main__":
    main()
