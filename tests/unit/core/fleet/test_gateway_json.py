# The JSON of etcd's gateway. The answers are what etcd 3.4.23 said, byte for byte.
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.fleet import gateway_json
from brokerd.core.fleet.etcd import ABSENT, Changes, Found, Pair, Put, Transacted
from brokerd.core.fleet.gateway_errors import EtcdFailure, FailureKind
from brokerd.core.fleet.gateway_json import BadGatewayAnswer, WatchLines
from brokerd.core.secret import Secret

CLUSTER = 2636436063713028369
HEAD = b'"header":{"cluster_id":"2636436063713028369","member_id":"9054851350176315775","revision":"5","raft_term":"2"}'
K1 = b'{"key":"azE=","create_revision":"2","mod_revision":"2","version":"1","value":"djE="}'
FAILED = (
    b"{" + HEAD + b',"responses":[{"response_range":{"header":{"revision":"5"},"kvs":[' + K1 + b'],"count":"1"}},'
    b'{"response_range":{"header":{"revision":"5"}}}]}'
)
DONE = (
    b"{" + HEAD + b',"succeeded":true,"responses":[{"response_put":{"header":{"revision":"5"}}},'
    b'{"response_delete_range":{"header":{"revision":"5"}}}]}'
)
CREATED = b'{"result":{' + HEAD + b',"created":true}}'
DELETED = b'{"result":{' + HEAD + b',"events":[{"type":"DELETE","kv":{"key":"azE=","mod_revision":"5"}}]}}'
COMPACTED = (
    b'{"result":{"header":{"cluster_id":"2636436063713028369","member_id":"9054851350176315775","raft_term":"2"},'
    b'"canceled":true,"compact_revision":"3"}}'
)


def test_a_transaction_as_etcd_wants_it() -> None:
    body = gateway_json.transaction({b"k1": 7, b"k2": ABSENT}, {b"k1": Put(b"\xff", 9), b"k2": Put(b""), b"k3": None})
    assert json.loads(body) == {
        "compare": [
            {"key": "azE=", "target": "MOD", "result": "EQUAL", "mod_revision": "7"},
            {"key": "azI=", "target": "MOD", "result": "EQUAL", "mod_revision": "0"},
        ],
        "success": [
            {"request_put": {"key": "azE=", "value": "/w==", "lease": "9"}},
            {"request_put": {"key": "azI=", "value": ""}},
            {"request_delete_range": {"key": "azM="}},
        ],
        "failure": [{"request_range": {"key": "azE="}}, {"request_range": {"key": "azI="}}],
    }


def test_a_transaction_that_was_not_as_expected() -> None:
    """`succeeded` is left out then, and `kvs` where there is no such key."""
    found = gateway_json.transacted(FAILED, [b"k1", b"k9"])
    assert found == Transacted(False, 5, CLUSTER, {b"k1": Pair(b"k1", b"v1", 2)})


def test_a_transaction_that_was_done() -> None:
    assert gateway_json.transacted(DONE, [b"k1"]) == Transacted(True, 5, CLUSTER, {})


@pytest.mark.parametrize("expected", [[b"k1"], [b"k9", b"k1"], [b"k1", b"k2", b"k3"]])
def test_a_transaction_that_answers_for_other_keys_is_not_believed(expected: list[bytes]) -> None:
    with pytest.raises(BadGatewayAnswer):
        gateway_json.transacted(FAILED, expected)


def test_what_was_read() -> None:
    assert gateway_json.found(FAILED) == Found({b"k1": Pair(b"k1", b"v1", 2)}, 5, CLUSTER)
    page = b"{" + HEAD + b',"kvs":[' + K1 + b'],"more":true,"count":"2"}'
    assert gateway_json.page(page) == (Found({b"k1": Pair(b"k1", b"v1", 2)}, 5, CLUSTER), True)
    assert gateway_json.page(b"{" + HEAD + b"}") == (Found({}, 5, CLUSTER), False)


def test_a_lease() -> None:
    assert gateway_json.lease(b"{" + HEAD + b',"ID":"4143208479681318670","TTL":"5"}') == (4143208479681318670, 5.0)
    assert gateway_json.seconds_left(b'{"result":{' + HEAD + b',"ID":"77","TTL":"5"}}\n') == 5.0
    assert gateway_json.seconds_left(b'{"result":{' + HEAD + b',"ID":"77"}}\n') == 0.0


def test_a_token() -> None:
    body = json.loads(gateway_json.login_request("me", Secret("hunter2")))
    assert body == {"name": "me", "password": "hunter2"}
    assert gateway_json.token(b"{" + HEAD + b',"token":"hCwYvBAv.9"}') == Secret("hCwYvBAv.9")
    for bad in (b"", b"a b", b"a\\nb", b"\xc3\xa9"):
        with pytest.raises(BadGatewayAnswer):
            gateway_json.token(b'{"token":"' + bad + b'"}')


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert gateway_json.end_of(prefix) == end


def test_a_watch_tells_a_revision_when_all_of_it_is_there() -> None:
    lines = WatchLines()
    assert lines.read(CREATED) == []
    assert lines.created
    assert lines.read(DELETED) == [Changes(((b"k1", None),), 5, CLUSTER)]
    progress = CREATED.replace(b',"created":true', b"")
    assert lines.read(progress) == [Changes((), 5, CLUSTER)]


def event(key: bytes, revision: int) -> bytes:
    return b'{"kv":{"key":"%s","mod_revision":"%d","value":"djE="}}' % (key, revision)


def message(*events: bytes, more: bytes = b"") -> bytes:
    return b'{"result":{' + HEAD + more + b',"events":[' + b",".join(events) + b"]}}"


FRAGMENT = b',"fragment":true'


def test_revisions_that_come_together_are_told_apart() -> None:
    told = WatchLines().read(message(event(b"azE=", 3), event(b"azI=", 3), event(b"azE=", 4)))
    assert isinstance(told, list)
    assert [(each.revision, [key for key, _ in each.changes]) for each in told] == [(3, [b"k1", b"k2"]), (4, [b"k1"])]


def test_a_revision_that_comes_in_fragments_is_put_together() -> None:
    lines = WatchLines()
    assert lines.read(message(event(b"azE=", 3), more=FRAGMENT)) == []
    assert lines.read(message(event(b"azI=", 3), more=FRAGMENT)) == []
    told = lines.read(message(event(b"azM=", 3), event(b"azE=", 4), more=FRAGMENT))
    assert isinstance(told, list)
    assert [(each.revision, [key for key, _ in each.changes]) for each in told] == [(3, [b"k1", b"k2", b"k3"])]
    assert lines.read(message()) == [Changes(((b"k1", Pair(b"k1", b"v1", 4)),), 4, CLUSTER)]


def test_a_watch_that_goes_back_is_not_believed() -> None:
    with pytest.raises(BadGatewayAnswer):
        WatchLines().read(message(event(b"azE=", 3), event(b"azI=", 2)))
    lines = WatchLines()
    lines.read(message(event(b"azE=", 3)))
    with pytest.raises(BadGatewayAnswer):
        lines.read(message(event(b"azI=", 3)))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (COMPACTED, FailureKind.COMPACTED),
        (
            b'{"result":{' + HEAD + b',"created":true,"canceled":true,"watch_id":"-1","cancel_reason":'
            b'"rpc error: code = PermissionDenied desc = etcdserver: permission denied"}}',
            FailureKind.REFUSED,
        ),
        (b'{"result":{' + HEAD + b',"canceled":true}}', FailureKind.UNCLEAR),
        (
            b'{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader",'
            b'"http_status":"Service Unavailable"}}',
            FailureKind.LATER,
        ),
        (b'{"error":{"code":14,"message":"etcdserver: no leader","details":[]}}', FailureKind.LATER),  # 3.6
    ],
)
def test_how_a_watch_ends(line: bytes, kind: FailureKind) -> None:
    told = WatchLines().read(line)
    assert isinstance(told, EtcdFailure)
    assert told.kind is kind


BAD = [
    b"",
    b"<html><body>502 Bad Gateway</body></html>",
    b"[]",
    b"{}",
    b"null",
    b"\xff",
    b"[" * 100_000,
    b'{"header":{}}',
    b'{"header":{"cluster_id":"x","revision":"5"}}',
    b'{"header":{"cluster_id":"1","revision":"-5"}}',
    b'{"header":{"cluster_id":"1","revision":5.5}}',
    b'{"header":{"cluster_id":"1","revision":"' + b"9" * 10_000 + b'"}}',
    b'{"header":{"cluster_id":"1"}}',
    b"{" + HEAD + b',"kvs":[{"key":"?","mod_revision":"2"}],"responses":[{}]}',
    b"{" + HEAD + b',"kvs":[{"key":"azE="}],"responses":[{}]}',
    b"{" + HEAD + b',"kvs":"x","responses":"x"}',
    b"{" + HEAD + b',"more":true,"responses":[{"response_put":{}}]}',
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_what_is_not_as_expected_is_not_believed_nor_quoted(body: bytes) -> None:
    for read in READERS:
        with pytest.raises(BadGatewayAnswer) as caught:
            read(body)
        assert caught.value.__cause__ is None
        assert "html" not in str(caught.value)


def _transacted(body: bytes) -> object:
    return gateway_json.transacted(body, [b"k1"])


READERS = (gateway_json.found, gateway_json.page, _transacted)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        _nested := lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["header", "kvs", "result", "cluster_id", "events", "error", "x"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_else_is_refused_in_order(body: bytes) -> None:
    others = (
        gateway_json.lease,
        gateway_json.seconds_left,
        gateway_json.token,
        gateway_json.revoked,
        WatchLines().read,
    )
    for read in (*READERS, *others):
        try:
            read(body)
        except BadGatewayAnswer:
            continue


def test_keys_that_were_not_asked_for_are_no_answer() -> None:
    assert gateway_json.found(FAILED, [b"k1", b"k2"])
    with pytest.raises(BadGatewayAnswer, match="not asked for"):
        gateway_json.found(FAILED, [b"k2"])
    page = b"{" + HEAD + b',"kvs":[{"key":"azE=","mod_revision":"2"}],"more":true}'
    assert gateway_json.page(page, b"k1", b"k")
    for begin, prefix in ((b"k2", b"k"), (b"", b"l")):  # the second time the same page, or another prefix
        with pytest.raises(BadGatewayAnswer, match="not asked for"):
            gateway_json.page(page, begin, prefix)
