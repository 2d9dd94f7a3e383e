"""What etcd's errors mean: whether something may have been changed, and what to do. Pure."""

# The texts are those of etcd's api/v3rpc/rpctypes/error.go, from 3.4 to 3.6. What this file does not know may have been
# carried out.
from __future__ import annotations

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
    TOO_LARGE = auto()  # the answer, for etcd's gateway or for us
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
        "Give the user of [store] a role that may read and write the keys of the fleet",
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
FAR_TOO_LARGE = "grpc: received message larger than max"  # the gateway of 3.4 before 3.4.17 reads at most 4 MiB


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
    words = f"it answered with status {status} and nothing that etcd says"
    return failure_of(body) or EtcdFailure(FailureKind.UNCLEAR, words)


def _failure(text: str) -> EtcdFailure:
    if text.startswith(FAR_TOO_LARGE):
        return EtcdFailure(FailureKind.TOO_LARGE, "the answer is larger than etcd's gateway can read")
    said = text.removeprefix("etcdserver: ")
    kind, remedy = KNOWN.get(said, (FailureKind.UNCLEAR, ""))
    if said not in KNOWN and (said == text or not text.isascii() or not text.isprintable() or len(text) > SHOWN):
        return EtcdFailure(kind, "it answered with an error that brokerd does not know")
    return EtcdFailure(kind, f"{said}. {remedy}" if remedy else said)
