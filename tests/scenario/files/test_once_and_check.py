# `brokerctl files --once` and `--check`: exit codes and words.
from __future__ import annotations

import json
import re

from tests.scenario.daemon.harness import Brokerd
from tests.scenario.files.process import Files
from tests.servers import OAuth2


async def test_once_writes_all_and_ends(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    files.describe({"on_change": files.tells()}, {"path": "json", "format": "json"})
    code, said = await files.run("--once")
    assert (code, said.count("event=file_written")) == (0, 2)
    assert await files.run("--once") == (0, "")
    value = await brokerd.get("app")
    assert (files.text(), json.loads(files.text("json") or "")["access_token"]) == (value, value)
    assert [held for _, held in files.runs_of_on_change] == [value], "a second one changes nothing"


async def test_once_ends_with_what_went_wrong(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    files.describe({}, {"path": "other", "grant": "none"})
    code, said = await files.run("--once")
    assert (code, files.text()) == (3, await brokerd.get("app"))
    assert re.search(r"brokerctl: 1 file fresh; .*other: no grant 'none'", said), said
    await brokerd.call("revoke", grant="app")
    files.describe({})
    assert (await files.run("--once"))[0] == 5
    assert files.text() is None
    await brokerd.stop()
    assert (await files.run("--once"))[0] == 6


async def test_once_does_not_promise_to_try_again(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    files.describe({"on_change": {"command": ["/bin/false"]}})
    code, said = await files.run("--once")
    assert (code, "it is tried again at the next call" in said) == (4, True), said
    code, said = await files.run("--once")
    assert (code, "event=on_change_failed" in said) == (4, True), said


async def test_check_names_every_mistake_with_its_line(files: Files) -> None:
    files.write(
        "\n".join(
            (
                "[[file]]",
                'path = "token"',
                'grant = "app"',
                "[[file]]",
                f'path = "{files.target}/a"',
                'grant = "app"',
                'template = "{acces_token}"',
                'mode = "0444"',
                "[[file]]",
                f'path = "{files.target}/b"',
                "grant = 5",
                "[[file]]",
                f'path = "{files.target}/c"',
                'grant = "app"',
                'on_change = { reload = "portal", restart = "x.service" }',
                "[[file]]",
                f'path = "{files.target}/d"',
                'grant = "app"',
                'group = "nobody-has-it"',
                "[other]",
            )
        ),
        "files.toml",
    )
    code, said = await files.run("--check")
    assert code == 2
    found = re.findall(r"^brokerctl: \S+/files\.toml:(\d+): ([\w.\[\]]+): (.*)$", said, re.MULTILINE)
    assert [(int(line), key) for line, key, _ in found] == [
        (2, "file[0].path"),
        (7, "file[1].template"),
        (8, "file[1].mode"),
        (11, "file[2].grant"),
        (15, "file[3].on_change"),
        (19, "file[4].group"),
        (20, "other"),
    ], said
    assert "known: {access_token}" in said
    code, said = await files.run()
    assert (code, said.count("brokerctl: ")) == (2, 7)


async def test_a_file_in_the_right_form_is_counted(files: Files) -> None:
    files.describe({"on_change": {"command": ["/usr/bin/no-such-program"]}}, {"path": "missing/token"})
    code, said = await files.run("--check")
    assert (code, f"{files.toml}: 2 files, no mistakes\n" in said) == (0, True)
    assert "warning: " in said
    assert "does not exist now" in said
    assert "there is no program /usr/bin/no-such-program that this user may run" in said
