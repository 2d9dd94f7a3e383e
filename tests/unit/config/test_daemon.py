# The [daemon] table: each mistake with its whole message.
from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.files import (
    error_of,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[daemon]\nsockt = 5", "CONFIG: daemon.sockt: unknown key; did you mean socket?"),
        ('[daemon]\nsocket = "run.sock"', 'CONFIG: daemon.socket: expected an absolute path, found "run.sock"'),
        ('[daemon]\nstate_dir = "var"', 'CONFIG: daemon.state_dir: expected an absolute path, found "var"'),
        (
            '[daemon]\nsocket_mode = "rw"',
            'CONFIG: daemon.socket_mode: expected an octal mode as text, such as "0660", found "rw"',
        ),
        ("[daemon]\nsocket_mode = 660", "CONFIG: daemon.socket_mode: expected text, found 660"),
        ('[daemon]\nkey = "k"', 'CONFIG: daemon.key: expected a table, found text'),
        (
            "[daemon]\nkey = {}",
            "CONFIG: daemon.key: expected exactly one of file, credential, env, command; found none: write "
            'key = { file = "/etc/brokerd/key" }',
        ),
        (
            '[daemon]\nkey = { file = "/k", env = "K" }',
            "CONFIG: daemon.key: expected exactly one of file, credential, env, command; found file and env: write "
            'key = { file = "/etc/brokerd/key" }',
        ),
        ('[daemon]\nkey = { file = "k" }', 'CONFIG: daemon.key.file: expected an absolute path, found text'),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_key_expected_and_found(main: Path, text: str, message: str) -> None:
    assert error_of(main, text) == message
