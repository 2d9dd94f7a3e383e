# Records that the disk did not take are kept by systemd until it does. Each replaces only the generation that it was
# made for, whoever was killed when. Without the key they reveal nothing (laws 2, 3, 15).
from __future__ import annotations

import errno
import os
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from brokerd.core.grant.attempts import reopened
from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State
from brokerd.core.ports import StoredRecord, StoreUnavailable
from brokerd.edge.store import unwritten_records
from brokerd.edge.store.unwritten_records import Piece
from brokerd.edge.systemd import descriptor_store
from tests.unit.core.values import access, refresh
from tests.unit.edge.store.stores import BIG, FULL, NOW, PRINT, full_disk, opened, running, stored

NEWER = replace(BIG, generation=8, interrupted=None)


class Held:
    """What systemd holds, over the processes of a test."""

    def __init__(self) -> None:
        self.pieces: dict[str, bytes] = {}
        self.kept = 0

    def next_process(self) -> Held:
        self.found = dict(self.pieces)
        return self

    def keep(self, piece: bytes) -> str:
        self.kept += 1
        self.pieces[f"piece-{self.kept}"] = piece
        return f"piece-{self.kept}"

    def drop(self, name: str) -> None:
        del self.pieces[name]


@pytest.fixture
def held() -> Held:
    return Held()


async def refused(folder: Path, held: Held, *records: Record) -> None:
    """A process that has stored generation 7, and then meets a full disk with these."""
    async with running(folder, pieces=held.next_process()) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        await store.begin("reports", PRINT, 7, NOW)
        with full_disk(store):
            for record in records:
                with pytest.raises(StoreUnavailable):
                    await store.write(record, PRINT, 7, concludes=True)


async def test_the_next_process_stores_what_this_one_could_not(tmp_path: Path, held: Held) -> None:
    await refused(tmp_path, held, NEWER)
    with closing(opened(tmp_path, pieces=held.next_process())) as store:
        assert store.all() == [StoredRecord("reports", PRINT, NEWER, None, recovered=True, replaces=7)]
    assert held.pieces == {}
    assert stored(tmp_path)["reports", PRINT].record == NEWER


async def test_while_the_disk_stays_full_each_process_hands_it_to_the_next(tmp_path: Path, held: Held) -> None:
    await refused(tmp_path, held, NEWER)
    for _ in range(2):
        async with running(tmp_path, pieces=held.next_process()) as store:
            with full_disk(store):
                assert store.all() == [StoredRecord("reports", PRINT, NEWER, None, None, True, True, 7)]
                with pytest.raises(StoreUnavailable):
                    await store.write(NEWER, PRINT, 7, concludes=False)
                assert store.is_kept_by_systemd("reports", PRINT)
    assert held.kept == 1, "it was held already"
    async with running(tmp_path, pieces=held.next_process()) as store:
        assert [row.unstored for row in store.all()] == [False]
        assert not store.is_kept_by_systemd("reports", PRINT)
    assert held.pieces == {}


async def test_a_grant_that_is_configured_later_finds_what_the_disk_refused(tmp_path: Path, held: Held) -> None:
    await refused(tmp_path, held, NEWER)
    async with running(tmp_path, pieces=held.next_process()) as store:
        with full_disk(store):
            store.all()
        assert await store.newest("reports") == [StoredRecord("reports", PRINT, NEWER, None, None, True, True, 7)]
        assert [row.record for row in await store.read("reports")] == [reopened(FULL, interrupted=NOW)]
        await store.write(NEWER, PRINT, 7, concludes=True)
        assert await store.newest("reports") == [StoredRecord("reports", PRINT, NEWER, None)]


async def test_a_grant_that_was_never_stored_is_found_too(tmp_path: Path, held: Held) -> None:
    for _ in range(2):
        async with running(tmp_path, pieces=held.next_process()) as store:
            with full_disk(store):
                store.all()
                with pytest.raises(StoreUnavailable):
                    await store.write(NEWER, PRINT, None, concludes=True)
            assert await store.newest("reports") == [StoredRecord("reports", PRINT, NEWER, None, None, True, True)]


async def test_what_was_stored_before_it_could_be_let_go_is_let_go_by_the_next(tmp_path: Path, held: Held) -> None:
    await refused(tmp_path, held, NEWER)
    async with running(tmp_path) as store:
        await store.write(replace(FULL, generation=8), PRINT, 7, concludes=True)
    with closing(opened(tmp_path, pieces=held.next_process())) as store:
        assert [(row.record and row.record.generation, row.recovered) for row in store.all()] == [(8, False)]
    assert held.pieces == {}


async def test_a_commit_that_failed_and_landed_does_not_drop_what_is_newer_than_it(tmp_path: Path, held: Held) -> None:
    await refused(tmp_path, held, replace(NEWER, generation=9))
    async with running(tmp_path) as store:
        await store.write(replace(FULL, generation=8), PRINT, 7, concludes=True)
    with closing(opened(tmp_path, pieces=held.next_process())) as store:
        assert [(row.record and row.record.generation, row.recovered) for row in store.all()] == [(9, True)]
    assert held.pieces == {}
    assert stored(tmp_path)["reports", PRINT].record == replace(NEWER, generation=9)


async def test_a_first_commit_that_failed_and_landed_does_not_drop_what_is_newer_than_it(
    tmp_path: Path, held: Held
) -> None:
    async with running(tmp_path, pieces=held.next_process()) as store:
        with full_disk(store), pytest.raises(StoreUnavailable):
            await store.write(NEWER, PRINT, None, concludes=True)
    async with running(tmp_path) as store:
        await store.write(replace(FULL, generation=0), PRINT, None, concludes=True)
    with closing(opened(tmp_path, pieces=held.next_process())) as store:
        assert [(row.record and row.record.generation, row.recovered) for row in store.all()] == [(8, True)]


async def test_of_two_the_newer_one_counts(tmp_path: Path, held: Held) -> None:
    """Killed after the newer one was handed over, before the older one was let go."""
    await refused(tmp_path, held, NEWER)
    older = dict(held.pieces)
    next_one = Held()
    async with running(tmp_path, pieces=held.next_process()) as store:
        with full_disk(store):
            store.all()
            with pytest.raises(StoreUnavailable):
                await store.write(replace(NEWER, generation=9), PRINT, 7, concludes=True)
    assert len(held.pieces) == 1
    next_one.pieces = {**held.pieces, **older}
    with closing(opened(tmp_path, pieces=next_one.next_process())) as store:
        assert [row.record and row.record.generation for row in store.all()] == [9]
    assert next_one.pieces == {}


async def test_what_is_for_another_store_or_a_generation_that_is_not_there_is_left_alone(
    tmp_path: Path, held: Held
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    await refused(tmp_path / "one", held, NEWER)
    async with running(tmp_path / "other") as store:
        await store.write(FULL, PRINT, None, concludes=True)
    (piece,) = (msgspec.msgpack.decode(each, type=Piece) for each in held.pieces.values())
    held.pieces["later"] = msgspec.msgpack.encode(replace(piece, replaces=9, generation=10))
    held.pieces["nonsense"] = b"\xc1"
    with closing(opened(tmp_path / "other", pieces=held.next_process())) as store:
        assert [row.record for row in store.all()] == [FULL]
    assert len(held.pieces) == 3


async def test_a_piece_opens_for_its_own_grant_time_and_place_alone_and_shows_no_secret(
    tmp_path: Path, held: Held
) -> None:
    await refused(tmp_path, held, replace(NEWER, refresh_token=refresh(value="hunter2")))
    ((name, content),) = held.pieces.items()
    assert b"hunter2" not in content
    piece = msgspec.msgpack.decode(content, type=Piece)
    for changed in (
        replace(piece, generation=9),
        replace(piece, sealed=piece.sealed[:-1] + bytes((piece.sealed[-1] ^ 1,))),
    ):
        held.pieces[name] = msgspec.msgpack.encode(changed)
        with closing(opened(tmp_path, pieces=held.next_process())) as store:
            assert [row.recovered for row in store.all()] == [False]


async def test_only_newer_tokens_are_held_and_the_last_room_is_for_what_cannot_be_had_again(
    tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unwritten_records, "ROOM_FOR_ALL", 0)
    plain = Record("plain", generation=1, access_token=access(value="x" * 200_000))
    async with running(tmp_path, pieces=held.next_process()) as store:
        await store.write(FULL, PRINT, None, concludes=True)
        with full_disk(store):
            for record, replaces in ((replace(BIG, failures=4), 7), (plain, None)):
                with pytest.raises(StoreUnavailable):
                    await store.write(record, PRINT, replaces, concludes=True)
            assert held.pieces == {}
            with pytest.raises(StoreUnavailable):
                await store.write(replace(plain, state=State.REVOKED), PRINT, None, concludes=True)
            assert len(held.pieces) == 1


async def test_a_data_key_stays_while_something_is_held_that_was_sealed_under_it(tmp_path: Path, held: Held) -> None:
    await refused(tmp_path, held, NEWER)
    async with running(tmp_path, pieces=held.next_process()) as store:
        with full_disk(store):
            store.all()
        await store.reencrypt()
    with closing(opened(tmp_path, pieces=held.next_process())) as store:
        assert [row.record for row in store.all()] == [NEWER]


def test_systemd_is_given_a_file_that_nobody_can_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        made = descriptor_store.from_systemd({"NOTIFY_SOCKET": "set"})
        assert made is not None
        name = made.keep(b"a piece")
        said, (descriptor,), _, _ = socket.recv_fds(manager, 4096, 4)
        made.drop(name)
        assert (said.decode(), manager.recv(4096).decode()) == (
            f"FDSTORE=1\nFDNAME={name}",
            f"FDSTOREREMOVE=1\nFDNAME={name}",
        )
    for change in (lambda: os.pwrite(descriptor, b"another", 0), lambda: os.ftruncate(descriptor, 0)):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == errno.EPERM
    assert os.pread(descriptor, 100, 0) == b"a piece"
    os.close(descriptor)
    assert descriptor_store.from_systemd({}) is None
