# When on_change starts, on virtual time: once a second at most, never without the last change, later after failures.
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import trio

from brokerd.config.token_files import OnChange
from brokerd.core.secret import Secret
from brokerd.edge.system import commands
from brokerd.files.on_change import ChangeRunner

FILE, OTHER = Path("/run/a"), Path("/run/b")
COMMAND = OnChange(command=("/bin/true",))
RELOAD = OnChange("reload", "portal.service")


class World:
    """Commands that take no time unless told so. `runs`: when each began, and what had changed until then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, what: OnChange, *, user: bool = False) -> None:
        self.runs: list[tuple[float, tuple[str, ...]]] = []
        self.told: list[set[Path]] = []
        self.failures: list[str | None] = []
        self.output: dict[str, list[str]] = {}
        self.takes = 0.0
        self.log = Mock()
        self.runner = ChangeRunner(what, self.log, lambda _: [Secret("s3cret-token")], self._ran, user=user)
        monkeypatch.setattr(commands, "run", self._run)

    async def _run(self, command: Sequence[str], within: float, line: Callable[[str], None]) -> str | None:
        self.runs.append((trio.current_time(), tuple(command)))
        for each in self.output.get("show" if "show" in command else "", []):
            line(each)
        await trio.sleep(self.takes)
        return self.failures.pop(0) if self.failures else None

    async def _ran(self, paths: Iterable[Path]) -> None:
        self.told.append(set(paths))

    @property
    def starts(self) -> list[float]:
        return [at for at, _ in self.runs]


async def test_fifty_changes_in_a_second_are_two_runs_and_the_last_one_is_followed(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, autojump_clock: Any
) -> None:
    world = World(monkeypatch, COMMAND)
    nursery.start_soon(world.runner.run)
    begun = trio.current_time()
    for _ in range(50):
        world.runner.changed(FILE)
        last = trio.current_time()
        await trio.sleep(0.02)
    await trio.sleep(5)
    assert [at - begun for at in world.starts] == pytest.approx([0.0, 1.0])
    assert world.starts[-1] >= last
    assert not world.runner.pending


async def test_a_change_while_it_runs_is_followed_by_another_run(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, autojump_clock: Any
) -> None:
    world = World(monkeypatch, COMMAND)
    world.takes = 3.0
    nursery.start_soon(world.runner.run)
    world.runner.changed(FILE)
    world.runner.changed(OTHER)
    await trio.sleep(2)
    world.runner.changed(FILE)
    await trio.sleep(10)
    assert len(world.runs) == 2
    assert world.told == [{OTHER}, {FILE}], "the first run may have read the older file"


async def test_what_fails_is_tried_again_and_told_once_it_works(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, autojump_clock: Any
) -> None:
    world = World(monkeypatch, COMMAND)
    world.failures = ["ended with status 1"] * 3
    nursery.start_soon(world.runner.run)
    begun = trio.current_time()
    world.runner.changed(FILE)
    await trio.sleep(5)
    assert world.runner.problem == "/bin/true failed: ended with status 1"
    await trio.sleep(50)
    assert [at - begun for at in world.starts] == pytest.approx([0.0, 2.0, 6.0, 14.0])
    assert (world.runner.problem, world.told) == ("", [{FILE}])


@pytest.mark.parametrize(
    ("states", "command"),
    [
        (["LoadState=loaded", "ActiveState=active"], ("reload", "--", "portal.service")),
        (["LoadState=loaded", "ActiveState=activating"], ("reload", "--", "portal.service")),
        (["LoadState=loaded", "ActiveState=inactive"], None),
        (["LoadState=loaded", "ActiveState=failed"], None),
        (["LoadState=not-found", "ActiveState=inactive"], None),
    ],
)
@pytest.mark.parametrize("user", [False, True])
async def test_only_a_unit_that_runs_is_reloaded(
    monkeypatch: pytest.MonkeyPatch, states: list[str], command: tuple[str, ...] | None, user: bool
) -> None:
    world = World(monkeypatch, RELOAD, user=user)
    world.output["show"] = states
    world.runner.changed(FILE)
    await world.runner.once(goes_on=True)
    asked = [words for _, words in world.runs]
    assert all(("--user" in words) == user and words[0] == "systemctl" for words in asked)
    assert [words[-3:] for words in asked[1:]] == ([command] if command else [])
    assert ("there is no such unit" in world.runner.problem) == ("LoadState=not-found" in states)


async def test_what_a_command_prints_of_a_secret_is_not_logged_whatever_its_lines_and_length(tmp_path: Path) -> None:
    """A field may have several lines, and a token 256 KiB: more than a line of output that is kept."""
    lines, long = "user = app\npassword = se;cret", "ab;" * 1_000
    file, log = tmp_path / "file", Mock()
    file.write_text(f"{lines}\n{long}\n")

    async def ran(_: Iterable[Path]) -> None:
        pass

    what = OnChange(command=("/bin/cat", str(file)))
    runner = ChangeRunner(what, log, lambda _: [Secret(lines), Secret(long)], ran, user=False)
    runner.changed(FILE)
    await runner.once(goes_on=True)
    said = str(log.call_args.kwargs["output"])
    assert "cret" not in said
    assert "ab" not in said
