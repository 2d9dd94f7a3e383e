"""What etcd's errors mean: whether something may have been changed, and what to do. Pure."""

# The texts are those of etcd's api/v3rpc/rpctypes/error.go, from 3.4 to 3.6. What this file does not know may have been
# carried out.
from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

SHOWN = 200  # characters of an error that brokerd does not know


class FailureKind(Enum):
    """How a request failed. Behind each but UNCLEAR and LEADER_CHANGED nothing was changed."""

    COMPACTED = auto()
    LEASE_GONE = auto()
    FULL = auto()
    REFUSED = auto()  # a person must change something
    TOKEN = auto()  # the token of our user counts no longer
    TOO_LARGE = auto()  # the answer or the request, for etcd's gateway or for us
    LATER = auto()  # this server will soon be able to, as soon as there is a leader
    LEADER_CHANGED = auto()  # the same for a read
    ELSEWHERE = auto()  # another server may be able to
    UNCLEAR = auto()  # it may have been carried out, or may be yet


@dataclass(frozen=True, slots=True)
class EtcdFailure:
    """Why a request was not carried out, or not surely. `words` have no secrets."""

    kind: FailureKind
    words: str


KNOWN: dict[str, tuple[FailureKind, str]] = {
    "mvcc: required revision has been compacted": (FailureKind.COMPACTED, ""),
    "requested lease not found": (FailureKind.LEASE_GONE, ""),
    "mvcc: database space exceeded": (
        FailureKind.FULL,
        "Compact and defragment etcd or raise its --quota-backend-bytes, then: etcdctl alarm disarm",
    ),
    "permission denied": (
        FailureKind.REFUSED,
        "Set user and password in [store], and give that user a role that may read and write the keys of the fleet",
    ),
    "authentication failed, invalid user ID or password": (FailureKind.REFUSED, "Check user and password in [store]"),
    "user name is empty": (FailureKind.REFUSED, "Set user and password in [store]"),
    "user name not found": (FailureKind.REFUSED, "Check user in [store]"),
    "authentication is not enabled": (
        FailureKind.REFUSED,
        "Remove user and password from [store], or enable authentication: etcdctl auth enable",
    ),
    "request is too large": (FailureKind.REFUSED, "Raise etcd's --max-request-bytes"),
    "too many operations in txn request": (FailureKind.REFUSED, "Set etcd's --max-txn-ops to 128 or more"),
    "duplicate key given in txn request": (FailureKind.REFUSED, ""),
    "key is not provided": (FailureKind.REFUSED, ""),
    "too large lease TTL": (FailureKind.REFUSED, ""),
    "role name not found": (FailureKind.REFUSED, ""),
    "role is not granted to the user": (FailureKind.REFUSED, ""),
    "permission is not granted to the role": (FailureKind.REFUSED, ""),
    "invalid auth management": (FailureKind.REFUSED, ""),
    "invalid auth token": (FailureKind.TOKEN, ""),
    "revision of auth store is old": (FailureKind.TOKEN, ""),
    "auth: revision in header is old": (FailureKind.TOKEN, ""),
    "no leader": (FailureKind.LATER, ""),
    "not leader": (FailureKind.LATER, ""),
    "too many requests": (FailureKind.LATER, ""),
    "not capable": (FailureKind.LATER, ""),  # a server that has just started
    "raft proposal dropped": (FailureKind.LATER, ""),
    "leader changed": (FailureKind.LEADER_CHANGED, ""),  # only reads end so
    "corrupt cluster": (FailureKind.ELSEWHERE, "See etcd's documentation on data corruption: etcdctl alarm list"),
    "rpc not supported for learner": (FailureKind.ELSEWHERE, "Name only voting members in [store] etcd"),
}
# A server says so of a request, and the gateway of older releases (until 3.4.16) of an answer of more than 4 MiB.
OF_GRPC = re.compile("^rpc error: code = [A-Za-z]+ desc = ")  # before the reason why a watch was cancelled
FAR_TOO_LARGE = "grpc: received message larger than max"
NO_GATEWAY = b"404 page not found"
NAMED_CERTIFICATE = b"CommonName of client sending a request against gateway will be ignored"


class _Told(msgspec.Struct):
    """3.4 says the text twice, 3.5 and 3.6 once or twice; in a stream 3.4 has `error` as an object."""

    error: str | dict[str, Any] = ""
    message: str = ""


def failure_of(body: bytes) -> EtcdFailure | None:
    """The error that an answer of the gateway, or a line of it, tells of; None: it does not."""
    try:
        told = msgspec.json.decode(body, type=_Told)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    inner = told.error.get("message") if isinstance(told.error, dict) else told.error
    text = told.message or inner
    return _failure(text) if isinstance(text, str) and text else None


def refused_answer(status: int, body: bytes) -> EtcdFailure:
    """What an answer that is no 200 means."""
    if body.startswith(NAMED_CERTIFICATE):
        words = "with authentication on, its gateway refuses client certificates that have a CommonName. "
        return EtcdFailure(FailureKind.REFUSED, words + "Make one without (cert_file in [store])")
    if status == 404 and body.strip() == NO_GATEWAY:
        words = "it has no JSON gateway at /v3/. It must be etcd 3.4 or later, started with --enable-grpc-gateway"
        return EtcdFailure(FailureKind.ELSEWHERE, words)
    words = f"it answered with status {status} and nothing that etcd says"
    return failure_of(body) or EtcdFailure(FailureKind.UNCLEAR, words)


def _failure(text: str) -> EtcdFailure:
    if text.startswith(FAR_TOO_LARGE):
        words = "request or answer is larger than its servers take. Raise etcd's --max-request-bytes"
        return EtcdFailure(FailureKind.TOO_LARGE, words)
    text = OF_GRPC.sub("", text)
    said = text.removeprefix("etcdserver: ")
    kind, remedy = KNOWN.get(said, (FailureKind.UNCLEAR, ""))
    if said not in KNOWN and (said == text or not text.isascii() or not text.isprintable() or len(text) > SHOWN):
        return EtcdFailure(kind, "it answered with an error that brokerd does not know")
    return EtcdFailure(kind, f"{said}. {remedy}" if remedy else said)
