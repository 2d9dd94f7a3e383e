# Reading a process, with the kernel's newer calls and without them: the values are of this very process.
from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokerd.core.access.policy import Caller
from brokerd.edge.peer import cgroups, executables, peer
from brokerd.edge.peer.inodes import FUSE
from brokerd.edge.peer.process import PeerProcess

EXE = str(Path(sys.executable).resolve())
HASH = hashlib.sha256(Path(EXE).read_bytes()).hexdigest()
EVERYTHING = frozenset({"exe", "sha256", "slice"})


@pytest.fixture
def myself() -> Iterator[PeerProcess]:
    made = PeerProcess(Caller(os.getpid(), os.geteuid(), frozenset()), os.pidfd_open(os.getpid()))
    yield made
    made.close()


async def test_path_and_hash_are_those_of_the_executable(myself: PeerProcess) -> None:
    seen = (await myself.look(EVERYTHING)).evidence
    assert (seen.exe, seen.sha256) == (EXE, HASH)


async def test_a_file_on_fuse_or_too_long_does_not_count(myself: PeerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executables, "_hashes", {})
    monkeypatch.setattr(executables, "LONGEST", 1_000)
    seen = (await myself.look(EVERYTHING)).evidence
    assert (seen.exe, seen.sha256) == (EXE, None)
    monkeypatch.setattr(executables, "file_system", lambda _file: FUSE)
    seen = (await myself.look(EVERYTHING)).evidence
    assert (seen.exe, seen.sha256) == (None, None)
    assert "FUSE" in seen.unread["exe"]


def test_without_the_kernels_id_the_cgroup_is_read_from_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    path = next(line[3:] for line in lines if line.startswith("0::"))
    assert cgroups.path_of(None, os.getpid()) == path


async def test_of_a_process_whose_number_is_not_seen_here_nothing_is_known(myself: PeerProcess) -> None:
    place = frozenset({"slice", "container"})
    await myself.look(place)
    assert myself.glance(place)
    stranger = PeerProcess(Caller(0, os.geteuid(), frozenset()), os.pidfd_open(os.getpid()))
    assert stranger.glance(place) is None
    assert set((await stranger.look(place)).evidence.unread) == place
    stranger.close()


async def test_before_linux_6_5_the_process_is_pinned_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "SO_PEERPIDFD", 9_999)  # an option that no kernel has
    ours, its = socket.socketpair()
    with ours, its:
        found = peer.Peer(its)
        assert found.process.caller.pid == os.getpid()
        assert found.lives()
        found.close()


async def test_one_look_serves_the_requests_of_a_batch_and_no_later_ones(
    myself: PeerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    await myself.look(EVERYTHING)
    seen = myself.glance(EVERYTHING)
    assert seen is not None
    looks = []
    # It finds nothing that is known.
    monkeypatch.setattr(executables.Executed, "glance", lambda *_, **__: looks.append(1))
    first, second = object(), object()
    assert not myself.still_shows(EVERYTHING, seen, first)
    monkeypatch.undo()
    assert myself.still_shows(EVERYTHING, seen, first)
    monkeypatch.setattr(executables.Executed, "glance", lambda *_, **__: looks.append(1))
    assert myself.still_shows(EVERYTHING, seen, first)
    assert len(looks) == 1
    assert not myself.still_shows(frozenset({"exe"}), seen, first), "other evidence is looked for"
    assert not myself.still_shows(EVERYTHING, seen, second), "it may have executed another program since"
    assert len(looks) == 3


def test_a_process_that_was_closed_does_not_live_whatever_gets_its_descriptor() -> None:
    """A connection ends while a request of it is under way, and the next one gets the number of its descriptor."""
    process = PeerProcess(Caller(os.getpid(), os.geteuid(), frozenset()), number := os.pidfd_open(os.getpid()))
    assert process.lives()
    process.close()
    another = os.pidfd_open(os.getpid())
    assert another == number
    assert not process.lives()
    with pytest.raises(ProcessLookupError):
        process.glance(frozenset())
    os.close(another)
