# The [[on_event]] tables: what they may say, and that a mistake names its place.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brokerd.config.load import load
from brokerd.config.on_event import read_on_event
from brokerd.core.events import Event
from brokerd.core.validation import ConfigError

GOOD: dict[str, Any] = {"events": ["provider_down"], "command": ["/bin/page", "-x"]}


def test_a_table_is_read() -> None:
    found = read_on_event("f: on_event[0]", {**GOOD, "after": "5m"})
    assert (found.events, found.command, found.after) == ((Event.PROVIDER_DOWN,), ("/bin/page", "-x"), 300.0)
    assert read_on_event("", GOOD).delay(Event.PROVIDER_DOWN) == 600.0


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"events": []}, "events", "expected one event or more"),
        ({"events": ["grant_needs_login", "provider_dwon"]}, "events[1]", "unknown event; known: grant_needs_login"),
        ({"events": ["denied"]}, "events[0]", "unknown event"),
        ({"command": []}, "command", "an absolute path first"),
        ({"command": ["page"]}, "command", "an absolute path first"),
        ({"events": ["bug"], "after": "5m"}, "after", "only for events that end by themselves"),
        ({"shell": True}, "shell", "unknown key"),
    ],
)
def test_a_mistake_says_where_and_what(change: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_on_event("", {**GOOD, **change})
    assert caught.value.key == key
    assert words in caught.value.message


def test_tables_of_all_files_count_and_an_error_has_its_place(tmp_path: Path) -> None:
    main, more = tmp_path / "brokerd.toml", tmp_path / "conf.d"
    more.mkdir()
    one = '[[on_event]]\nevents = ["bug"]\ncommand = ["/bin/page"]\n'
    main.write_text(one)
    (more / "b.toml").write_text(one.replace("bug", "provider_up"))
    for path in (main, more / "b.toml"):
        path.chmod(0o600)
    assert [each.events for each in load(main).on_event] == [(Event.BUG,), (Event.PROVIDER_UP,)]
    main.write_text(one * 40)
    with pytest.raises(ConfigError, match=r"expected at most 32"):
        load(main)
