"""The JSON of etcd's gateway: requests as bytes, answers as the values of the Etcd port. Pure: edge/etcd sends them."""

# Every answer is checked: what is not as expected raises BadGatewayAnswer. What etcd says of errors: gateway_errors.py.
# Numbers of 64 bits come as text, false and zero are left out, keys and values are base64.
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from brokerd.core.fleet.etcd import Changes, Found, Pair, Put, Transacted
from brokerd.core.fleet.gateway_errors import EtcdFailure, FailureKind, failure_of
from brokerd.core.secret import Secret

MOST_CHANGES = 100_000  # of one revision: a lease that ends deletes all of its keys at once
OPERATIONS = 128  # of one transaction: what etcd allows unless it is told otherwise (--max-txn-ops)

T = TypeVar("T")
Number = Annotated[int, msgspec.Meta(ge=0)]


class BadGatewayAnswer(Exception):
    """The answer is not what etcd's gateway says. The text quotes nothing of it."""


class _Header(msgspec.Struct):
    cluster_id: Number
    revision: Number = 0


class _Answer(msgspec.Struct):
    header: _Header


class _KeyValue(msgspec.Struct, gc=False):
    key: bytes
    mod_revision: Number
    value: bytes = b""
    lease: int = 0

    def pair(self) -> Pair:
        return Pair(self.key, self.value, self.mod_revision, self.lease)


class _Pairs(msgspec.Struct):
    kvs: list[_KeyValue] = []
    more: bool = False

    def pairs(self) -> dict[bytes, Pair]:
        return {each.key: each.pair() for each in self.kvs}


class _Range(_Pairs, kw_only=True):
    header: _Header


class _Response(msgspec.Struct):
    response_range: _Pairs | None = None


class _Transaction(msgspec.Struct):
    header: _Header
    succeeded: bool = False
    responses: list[_Response] = []


class _Grant(msgspec.Struct):
    id: Annotated[int, msgspec.Meta(gt=0)] = msgspec.field(name="ID")
    ttl: Annotated[int, msgspec.Meta(gt=0)] = msgspec.field(name="TTL")


class _Alive(msgspec.Struct):
    id: Number = msgspec.field(name="ID")
    ttl: int = msgspec.field(name="TTL", default=0)


class _AliveLine(msgspec.Struct):
    result: _Alive


class _Token(msgspec.Struct):
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]


class _Event(msgspec.Struct, gc=False):
    kv: _KeyValue
    type: str = "PUT"


class _Seen(msgspec.Struct):
    header: _Header
    created: bool = False
    canceled: bool = False
    cancel_reason: str = ""
    compact_revision: Number = 0
    fragment: bool = False
    events: list[_Event] = []


class _SeenLine(msgspec.Struct):
    result: _Seen


def read_request(keys: Sequence[bytes], revision: int = 0) -> bytes:
    """At most OPERATIONS keys at one revision; 0: the newest."""
    at = {"revision": str(revision)} if revision else {}
    return _body({"compare": [], "success": [{"request_range": {"key": key, **at}} for key in keys]})


def page_request(begin: bytes, end: bytes, limit: int, revision: int = 0) -> bytes:
    """At most `limit` keys from `begin` to below `end`, in order."""
    at = {"revision": str(revision)} if revision else {}
    return _body({"key": begin, "range_end": end, "limit": str(limit), **at})


def end_of(prefix: bytes) -> bytes:
    """The end of the range of all keys with that prefix."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\x00"  # which stands for: up to the last key


def transaction(expected: Mapping[bytes, int], changes: Mapping[bytes, Put | None]) -> bytes:
    return _body(
        {
            "compare": [
                {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
                for key, revision in expected.items()
            ],
            "success": [_change(key, put) for key, put in changes.items()],
            "failure": [{"request_range": {"key": key}} for key in expected],
        }
    )


def _change(key: bytes, put: Put | None) -> dict[str, Any]:
    if put is None:
        return {"request_delete_range": {"key": key}}
    return {"request_put": {"key": key, "value": put.value, **({"lease": str(put.lease)} if put.lease else {})}}


def lease_request(seconds: int) -> bytes:
    return _body({"TTL": str(seconds)})


def of_lease(lease: int) -> bytes:
    """Keeps it alive, or ends it."""
    return _body({"ID": str(lease)})


def watch_request(prefix: bytes, since: int) -> bytes:
    """`fragment`: without it, all that a watch missed comes in one message, however large it is."""
    wanted = {"key": prefix, "range_end": end_of(prefix), "start_revision": str(since)}
    return _body({"create_request": {**wanted, "progress_notify": True, "fragment": True}})


def login_request(user: str, password: Secret) -> bytes:
    return _body({"name": user, "password": password.reveal()})


def found(body: bytes, wanted: Collection[bytes] | None = None) -> Found:
    """The answer to `read_request` for the `wanted` keys."""
    answer = _checked(body, _Transaction)
    pairs = {key: pair for each in answer.responses for key, pair in _range(each).pairs().items()}
    if wanted is not None and not pairs.keys() <= set(wanted):
        raise BadGatewayAnswer("keys that were not asked for")
    return Found(pairs, _revision(answer.header), answer.header.cluster_id)


def page(body: bytes, begin: bytes = b"", prefix: bytes = b"") -> tuple[Found, bool]:
    """The answer to `page_request` for keys with that prefix, and whether there are more."""
    answer = _checked(body, _Range)
    if any(each.key < begin or not each.key.startswith(prefix) for each in answer.kvs):
        raise BadGatewayAnswer("keys that were not asked for")
    if answer.more and not answer.kvs:
        raise BadGatewayAnswer("a page without keys that is not the last")
    return Found(answer.pairs(), _revision(answer.header), answer.header.cluster_id), answer.more


def transacted(body: bytes, expected: Iterable[bytes]) -> Transacted:
    """The answer to `transaction`."""
    answer = _checked(body, _Transaction)
    revision, cluster = _revision(answer.header), answer.header.cluster_id
    if answer.succeeded:
        return Transacted(True, revision, cluster, {})
    keys, pairs = tuple(expected), [_range(each).pairs() for each in answer.responses]
    if len(pairs) != len(keys) or any(set(each) - {key} for key, each in zip(keys, pairs, strict=True)):
        raise BadGatewayAnswer("a transaction without what was asked for")
    return Transacted(False, revision, cluster, {key: pair for each in pairs for key, pair in each.items()})


def lease(body: bytes) -> tuple[int, float]:
    answer = _checked(body, _Grant)
    return answer.id, float(answer.ttl)


def seconds_left(body: bytes) -> float:
    """Of a lease that was to be kept alive; 0: it is gone."""
    return max(0.0, float(_checked(body, _AliveLine).result.ttl))


def revoked(body: bytes) -> None:
    """The answer to the end of a lease."""
    _checked(body, _Answer)


def token(body: bytes) -> Secret:
    given = _checked(body, _Token).token
    if not given.isascii() or not given.isprintable() or " " in given:
        raise BadGatewayAnswer("a token that no header can carry")
    return Secret(given)


class WatchLines:
    """Makes changes of the lines of one watch: one Changes for each revision, and only when all of it is there."""

    def __init__(self) -> None:
        self.created = False
        self._revision = 0  # of the events that wait for their rest
        self._waiting: list[tuple[bytes, Pair | None]] = []

    def read(self, line: bytes) -> list[Changes] | EtcdFailure:
        """What one line brings; a EtcdFailure: the watch has ended. Raises BadGatewayAnswer."""
        failure = failure_of(line)
        if failure is not None:
            return failure
        seen = _checked(line, _SeenLine).result
        if seen.canceled:
            return _ended(seen)
        cluster = seen.header.cluster_id
        if seen.created:
            self.created = True
            return []
        if not seen.events and not seen.fragment and not self._waiting:
            return [Changes((), _revision(seen.header), cluster)]
        complete = []
        for event in seen.events:
            revision = event.kv.mod_revision
            if revision != self._revision or not self._waiting:
                complete += self._complete(cluster)
                if revision <= self._revision:
                    raise BadGatewayAnswer("a watch that goes back")
                self._revision = revision
            if len(self._waiting) >= MOST_CHANGES:
                raise BadGatewayAnswer("more changes in one revision than etcd makes")
            self._waiting.append((event.kv.key, _pair_of(event)))
        return complete if seen.fragment else [*complete, *self._complete(cluster)]

    def _complete(self, cluster: int) -> list[Changes]:
        waiting, self._waiting = tuple(self._waiting), []
        return [Changes(waiting, self._revision, cluster)] if waiting else []


def _pair_of(event: _Event) -> Pair | None:
    if event.type not in ("PUT", "DELETE"):
        raise BadGatewayAnswer("an event of a kind that brokerd does not know")
    return event.kv.pair() if event.type == "PUT" else None


def _ended(seen: _Seen) -> EtcdFailure:
    if seen.compact_revision:
        return EtcdFailure(FailureKind.COMPACTED, "the revision to watch from was compacted")
    told = failure_of(_body({"message": seen.cancel_reason, "code": 0})) if seen.cancel_reason else None
    return told or EtcdFailure(FailureKind.UNCLEAR, "etcd ended the watch")


def _body(value: object) -> bytes:
    return msgspec.json.encode(value)


def _range(response: _Response) -> _Pairs:
    if response.response_range is None:
        raise BadGatewayAnswer("a transaction without what was asked for")
    return response.response_range


def _revision(header: _Header) -> int:
    if not header.revision:
        raise BadGatewayAnswer("an answer without a revision")
    return header.revision


def _checked(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # their texts may quote the answer
        raise BadGatewayAnswer("an answer that is not that of etcd's JSON gateway") from None
