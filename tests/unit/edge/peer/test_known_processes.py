# What is remembered of a process that has connected before: only what never changes, and only of this very process.
from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from brokerd.core.access.policy import Caller
from brokerd.edge.peer import known_processes
from brokerd.edge.peer.known_processes import MOST, known
from brokerd.edge.peer.peer import Peer
from tests.did_not_run import did_not_run

UNNUMBERED = "pidfds have no numbers on this kernel (before Linux 6.9)"


@contextmanager
def pidfd(pid: int) -> Iterator[int]:
    made = os.pidfd_open(pid)
    try:
        yield made
    finally:
        os.close(made)


@pytest.fixture
def numbered() -> None:
    if not known_processes._have_numbers():
        did_not_run("KNOWN PROCESSES", UNNUMBERED)


def test_each_process_has_a_memory_of_its_own(numbered: None) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with pidfd(os.getpid()) as first, pidfd(os.getpid()) as second, pidfd(other.pid) as its:
            assert known(first) is known(second)
            assert known(first) is not known(its)
        other.communicate(b"\n")


def test_equal_callers_are_one_object_and_others_are_not() -> None:
    with pidfd(os.getpid()) as ours:
        here = known(ours)
    first = here.as_before(Caller(1, 1000, frozenset({1000})))
    assert here.as_before(Caller(1, 1000, frozenset({1000}))) is first
    other = here.as_before(Caller(1, 1000, frozenset({1000, 4})))
    assert other is not first
    assert here.as_before(Caller(1, 1000, frozenset({1000}))) == first


def test_two_connections_of_a_process_have_the_same_caller(numbered: None) -> None:
    made = []
    for _ in range(2):
        ours, its = socket.socketpair()
        with ours, its:
            peer = Peer(its)
            made.append(peer.process.caller)
            peer.close()
    assert made[0] is made[1]
    assert made[0].pid == os.getpid()


def test_without_numbers_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_processes, "_have_numbers", lambda: False)
    with pidfd(os.getpid()) as ours:
        assert known(ours) is not known(ours)


def test_what_is_remembered_is_bounded(numbered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        known_processes, "_known", kept := {number: known_processes.KnownProcess(False) for number in range(MOST)}
    )
    with pidfd(os.getpid()) as ours:
        found = known(ours)
        assert list(kept.values()) == [found]


def test_a_process_that_has_ended_is_not_remembered_anew() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        made = os.pidfd_open(ended.pid)
    try:
        with pytest.raises(ProcessLookupError):
            known(made)
    finally:
        os.close(made)
