# What a keeper remembers before a file has its new name: a kill at any moment loses no on_change, and no dead token is
# taken for a living one.
from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trio
from brokerd_client import Token

from brokerd.config.token_files import OnChange, Source, TokenFile
from brokerd.core.files.contents import Contents
from brokerd.edge.files import replaced_file
from brokerd.edge.files.kept_files import KeptFile, KeptFiles
from brokerd.files.keeper import Keeper, Tools


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptFiles]:
    made = KeptFiles(tmp_path / "state")
    yield made
    made.close()


def keeper(kept: KeptFiles, path: Path, before: KeptFile | None = None) -> Keeper:
    tools = Tools(kept, trio.CapacityLimiter(1), Mock(), lambda _: None, lambda _: False)
    return Keeper(TokenFile(path, Source("app"), Contents(), on_change=OnChange(command=("/bin/true",))), before, tools)


async def test_before_the_name_changes_on_change_is_due_and_the_earlier_expiry_counts(
    tmp_path: Path, kept: KeptFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "token", time.time()
    first = keeper(kept, path)
    first.tell(Token("old", "Bearer", now + 50, "app"))
    await first.catch_up()
    await first.on_change_ran()
    assert kept.read()[path] == KeptFile(str(path), now + 50, path.stat().st_ino, due=False)

    whole = replaced_file.replace

    def killed(at: Path, *rest: Any, **more: Any) -> int:
        if at == path:
            more["before"]()
            raise KeyboardInterrupt  # as a kill just before rename()
        return whole(at, *rest, **more)

    second = keeper(kept, path, kept.read()[path])
    second.tell(Token("new", "Bearer", now + 500, "app"))
    monkeypatch.setattr(replaced_file, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        await second.catch_up()
    assert path.read_text() == "old"
    assert kept.read()[path] == KeptFile(str(path), now + 50, None, due=True)


async def test_a_disk_that_cannot_be_written_takes_no_living_token(
    tmp_path: Path, kept: KeptFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "token", time.time()
    made = keeper(kept, path)
    made.tell(Token("old", "Bearer", now + 50, "app"))
    await made.catch_up()
    monkeypatch.setattr(replaced_file, "replace", Mock(side_effect=OSError(28, "No space left on device")))
    made.tell(Token("new", "Bearer", now + 500, "app"))
    await made.catch_up()
    assert (path.read_text(), made.code) == ("old", "io")
    assert "make room" in made.problem
    assert "new" not in str(made._tools.say.mock_calls)
