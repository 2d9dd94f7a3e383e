# What etcd's errors mean. The bodies are what etcd 3.4.23 said, and the forms of 3.5 and 3.6.
from __future__ import annotations

import json

import pytest

from brokerd.core.fleet.gateway_errors import EtcdFailure, FailureKind, refused_answer

KINDS = [
    ("etcdserver: mvcc: required revision has been compacted", FailureKind.COMPACTED),
    ("etcdserver: mvcc: required revision is a future revision", FailureKind.UNCLEAR),
    ("etcdserver: requested lease not found", FailureKind.LEASE_GONE),
    ("etcdserver: mvcc: database space exceeded", FailureKind.FULL),
    ("etcdserver: permission denied", FailureKind.REFUSED),
    ("etcdserver: authentication failed, invalid user ID or password", FailureKind.REFUSED),
    ("etcdserver: user name is empty", FailureKind.REFUSED),
    ("etcdserver: authentication is not enabled", FailureKind.REFUSED),
    ("etcdserver: request is too large", FailureKind.REFUSED),
    ("etcdserver: invalid auth token", FailureKind.TOKEN),
    ("etcdserver: revision of auth store is old", FailureKind.TOKEN),
    ("etcdserver: no leader", FailureKind.LATER),
    ("etcdserver: too many requests", FailureKind.LATER),
    ("raft proposal dropped", FailureKind.LATER),
    ("etcdserver: leader changed", FailureKind.LEADER_CHANGED),
    ("etcdserver: corrupt cluster", FailureKind.ELSEWHERE),
    ("grpc: received message larger than max (5592440 vs. 4194304)", FailureKind.TOO_LARGE),
    # Behind these it may have been carried out.
    ("etcdserver: request timed out", FailureKind.UNCLEAR),
    ("etcdserver: request timed out, possibly due to previous leader failure", FailureKind.UNCLEAR),
    ("etcdserver: request timed out, possibly due to connection lost", FailureKind.UNCLEAR),
    ("etcdserver: server stopped", FailureKind.UNCLEAR),
    ("context deadline exceeded", FailureKind.UNCLEAR),
    ("transport is closing", FailureKind.UNCLEAR),
]


@pytest.mark.parametrize(("text", "kind"), KINDS)
def test_what_an_error_means(text: str, kind: FailureKind) -> None:
    forms = (
        {"error": text, "message": text, "code": 5},
        {"error": text, "code": 5},
        {"code": 5, "message": text, "details": []},
        {"error": {"grpc_code": 5, "http_code": 404, "message": text, "http_status": "x"}},
    )
    for form in forms:
        assert refused_answer(503, json.dumps(form).encode()).kind is kind


def test_an_error_of_etcd_that_is_not_known_is_shown() -> None:
    body = b'{"error":"etcdserver: peerURL exists","message":"etcdserver: peerURL exists","code":9}'
    assert refused_answer(412, body) == EtcdFailure(FailureKind.UNCLEAR, "peerURL exists")


@pytest.mark.parametrize("text", ["hunter2", "etcdserver: " + "x" * 300, "etcdserver: a\nb", "etcdserver: é"])
def test_what_may_not_be_etcds_is_not_shown(text: str) -> None:
    failure = refused_answer(500, json.dumps({"message": text}).encode())
    assert failure == EtcdFailure(FailureKind.UNCLEAR, "it answered with an error that brokerd does not know")


@pytest.mark.parametrize(
    "body", [b"", b"<html>hunter2</html>", b"{}", b"[]", b'{"message":7}', b"\xff", b"[" * 100_000]
)
def test_an_answer_of_something_else_is_unclear(body: bytes) -> None:
    failure = refused_answer(502, body)
    assert failure == EtcdFailure(FailureKind.UNCLEAR, "it answered with status 502 and nothing that etcd says")


def test_a_server_without_a_gateway_is_told_apart() -> None:
    failure = refused_answer(404, b"404 page not found\n")
    assert failure.kind is FailureKind.ELSEWHERE
    assert failure.words.endswith("started with --enable-grpc-gateway")
    assert refused_answer(404, b"Not Found").kind is FailureKind.UNCLEAR


def test_a_certificate_with_a_common_name_is_a_persons_matter() -> None:
    text = b"CommonName of client sending a request against gateway will be ignored and not used as expected\n"
    assert refused_answer(400, text).kind is FailureKind.REFUSED
