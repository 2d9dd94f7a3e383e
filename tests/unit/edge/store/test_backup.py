# An incomplete backup is refused, and so is restoring into a directory that has a store. Both stay unchanged.
from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from brokerd.edge.store.backup import NotRestored, content, header, put_back
from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system.entropy import SystemEntropy

KEK = b"k" * 32


def opened(folder: Path) -> SqliteStore:
    return SqliteStore(folder, KEK, "machine-1", SystemEntropy())


def made(folder: Path) -> bytes:
    """The bytes of a backup of a new store in that folder."""
    folder.mkdir(mode=0o700)
    with closing(opened(folder)) as store:
        return whole(store._database.snapshot())


def whole(data: bytes) -> bytes:
    return header(len(data), hashlib.sha256(data).hexdigest()) + data


def restore(file: Path, folder: Path, *, force: bool) -> Path | None:
    return put_back(content(file), folder, force=force)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_a_restored_store_is_one_that_was_left_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(made(tmp_path / "one"))
    assert restore(tmp_path / "file", tmp_path / "two", force=False) is None
    with closing(opened(tmp_path / "two")) as store:
        assert not store.adopted
    assert (tmp_path / "two").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "two" / "brokerd.db").stat().st_mode & 0o777 == 0o600


def test_also_where_the_inode_happens_to_be_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(made(tmp_path / "one"))
    store = opened(tmp_path / "one")
    store.close()
    (tmp_path / "one" / "brokerd.db").unlink()
    (tmp_path / "one" / "lock").unlink()
    restore(tmp_path / "file", tmp_path / "one", force=False)
    with closing(opened(tmp_path / "one")) as store:
        assert not store.adopted


def test_a_store_that_is_there_is_kept_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(made(tmp_path / "one"))
    before = bytes_of(tmp_path / "one")
    with pytest.raises(NotRestored, match="--force"):
        restore(tmp_path / "file", tmp_path / "one", force=False)
    assert bytes_of(tmp_path / "one") == before
    kept = restore(tmp_path / "file", tmp_path / "one", force=True)
    assert kept is not None
    assert kept.read_bytes() == before["brokerd.db"]


def test_a_store_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(made(tmp_path / "one"))
    with closing(opened(tmp_path / "one")), pytest.raises(NotRestored, match="in use by the brokerd with pid"):
        restore(tmp_path / "file", tmp_path / "one", force=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(lambda data: data[:-1], "damaged or cut off", id="cut off"),
        pytest.param(lambda data: data[:5000] + b"x" + data[5001:], "damaged or cut off", id="another byte"),
        pytest.param(lambda data: b"brokerd-backup-2" + data[16:], "newer", id="newer"),
        pytest.param(lambda _: b"", "no backup", id="empty"),
        pytest.param(lambda _: whole(b"no database" * 100), "cannot be opened", id="no database"),
        pytest.param(lambda _: whole(b""), "no store", id="an empty database"),
    ],
)
def test_what_is_no_whole_backup_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes], words: str) -> None:
    (tmp_path / "file").write_bytes(spoil(made(tmp_path / "one")))
    before = bytes_of(tmp_path / "one")
    with pytest.raises(NotRestored, match=words):
        restore(tmp_path / "file", tmp_path / "one", force=True)
    assert bytes_of(tmp_path / "one") == before
