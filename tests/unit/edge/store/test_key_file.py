# Key files: made once, never over another file, and read in one form only.
from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from brokerd.edge.store import key_file


def test_a_generated_key_is_read_back_and_is_never_the_same() -> None:
    made = [key_file.generate() for _ in range(50)]
    assert len(set(made)) == 50
    for text in made:
        assert text.startswith("brokerd-key-1:")
        assert text.endswith("\n")
        assert len(key_file.parse(text)) == 32


def test_blanks_around_a_key_do_not_matter() -> None:
    text = key_file.generate()
    assert key_file.parse(f"\n  {text}\n") == key_file.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "brokerd-key-1:",
        "brokerd-key-1:hunter2",
        "brokerd-key-1:" + base64.b64encode(b"x" * 31).decode(),
        "brokerd-key-1:" + base64.b64encode(b"x" * 33).decode(),
        "brokerd-key-2:" + base64.b64encode(b"x" * 32).decode(),
        base64.b64encode(b"x" * 32).decode(),
        "brokerd-key-1:" + base64.b64encode(b"x" * 32).decode() + "\nbrokerd-key-1:" + "A" * 44,
        "brokerd-key-1:" + "é" * 44,
    ],
)
def test_what_is_no_key_is_refused_with_its_remedy_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        key_file.parse(text)
    assert str(caught.value) == (
        'expected one line "brokerd-key-1:" and 32 bytes in base64, found something else; make a key with: brokerctl '
        "keygen FILE"
    )


def test_a_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key_file.create(tmp_path / "key")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert len(key_file.parse((tmp_path / "key").read_text())) == 32


def test_a_key_is_never_made_over_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key_file.create(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        key_file.create(path)
    assert path.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        key_file.create(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(FileNotFoundError):
        key_file.create(tmp_path / "nowhere" / "key")
