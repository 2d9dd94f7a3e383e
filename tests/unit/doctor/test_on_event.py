# What doctor says of the commands of [[on_event]].
from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from brokerd.config.settings import Configuration
from brokerd.core.alerts import OnEvent
from brokerd.core.events import Event
from brokerd.doctor.on_event import event_commands


def test_each_command_is_looked_at_once_and_not_run(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    page, missing = tmp_path / "page", str(tmp_path / "none")
    page.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    page.chmod(0o755)
    rows = tuple(OnEvent((Event.BUG,), command) for command in ((str(page),), (str(page), "-x"), (missing,)))
    facts: Any = SimpleNamespace(
        configuration=Configuration("brokerd.toml", on_event=rows), account=SimpleNamespace(uid=os.geteuid(), name="us")
    )
    right, wrong = event_commands(facts)
    assert (right.level, wrong.level) == ("ok", "problem")
    assert "No such file" in wrong.found
    assert not (tmp_path / "ran").exists()
    assert list(event_commands(SimpleNamespace(configuration=None))) == []  # type: ignore[arg-type]
