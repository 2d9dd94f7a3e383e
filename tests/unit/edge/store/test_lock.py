# One daemon for one state directory.
from __future__ import annotations

import os
from pathlib import Path

import pytest

from brokerd.edge.store.lock import InUse, Lock


def test_a_second_daemon_is_refused_and_told_the_first_ones_pid(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    with pytest.raises(InUse) as caught:
        Lock(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is in use by the brokerd with pid {os.getpid()}; end that one first, or set another state_dir"
    )
    held.release()
    Lock(tmp_path).release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
