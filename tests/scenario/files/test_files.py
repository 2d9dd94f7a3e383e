# What users of `brokerctl files` rely on: the file is there, whole and fresh, and gone when its token is.
from __future__ import annotations

import json
import os
import re
import stat
import time

from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at, until
from tests.scenario.files.process import Files
from tests.servers import OAuth2
from tests.servers.oauth2 import Settings


async def test_every_format_is_written_and_follows_each_renewal(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    files.describe(
        {"path": "token"},
        {"path": "header", "format": "header", "mode": "0600"},
        {"path": "json", "format": "json"},
        {"path": "env", "format": "env"},
        {"path": "conf", "template": 'proxy_set_header Authorization "Bearer {access_token}";\n'},
        {"path": "group", "group": str(os.getgid())},
    )
    await files.start()
    for renews in (False, True):
        if renews:
            await brokerd.call("refresh", grant="app")
        value = await brokerd.get("app")
        await files.holds(value)
        await files.holds(f"Authorization: Bearer {value}\n", "header")
        await files.holds(f'proxy_set_header Authorization "Bearer {value}";\n', "conf")
        await until(lambda value=value: json.loads(files.text("json") or "{}").get("access_token") == value)
        await until(
            lambda value=value: (files.text("env") or "").startswith(f"ACCESS_TOKEN={value}\nTOKEN_TYPE=Bearer\n")
        )
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files.target.iterdir()}
    assert modes == {"token": 0o400, "header": 0o600, "json": 0o400, "env": 0o400, "conf": 0o400, "group": 0o440}
    assert value not in files.log


async def test_a_restart_of_the_daemon_or_of_the_service_writes_and_runs_nothing(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    files.describe({"on_change": files.tells()})
    await files.start()
    value = await brokerd.get("app")
    await until(lambda: len(files.runs_of_on_change) == 1)
    inode = (files.target / "token").stat().st_ino
    await brokerd.restart()
    await files.said("brokerd can be asked again")
    assert await files.stop() == 0
    await files.start()
    await files.restart()  # kill -9
    assert (files.text(), (files.target / "token").stat().st_ino) == (value, inode)
    assert [held for _, held in files.runs_of_on_change] == [value]
    await brokerd.call("refresh", grant="app")
    await files.holds(await brokerd.get("app"))
    await until(lambda: len(files.runs_of_on_change) == 2)


async def test_a_revoked_token_goes_and_on_change_says_so(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    files.describe({"on_change": files.tells()}, {"path": "stays", "on_revoke": "empty"})
    await files.start()
    await until(lambda: len(files.runs_of_on_change) == 1)
    await brokerd.call("revoke", grant="app")
    await files.holds(None)
    await files.holds("", "stays")
    await until(lambda: [held for _, held in files.runs_of_on_change][1:] == [None])
    assert stat.S_IMODE((files.target / "stays").stat().st_mode) == 0o400
    for what, name in {"removed": "token", "emptied": "stays"}.items():
        assert re.search(rf'event=file_{what} grant=app message="file {what}" path=\S*/{name} ', files.log), files.log
    assert (await files.stop(), await brokerd.stop()) == (0, 0)
    await brokerd.start()
    await files.start()  # with a grant that has no token from the start
    assert (files.text(), files.text("stays")) == (None, "")


async def test_a_lost_right_takes_the_file_and_a_new_one_brings_it_back(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    files.describe({})
    await files.start()
    value = await brokerd.get("app")
    await files.holds(value)
    providers = {"oauth2": at(provider)}
    brokerd.configure({"other": FIVE["oauth2"]}, providers)
    await brokerd.call("reload")
    await files.holds(None)
    brokerd.configure({"app": FIVE["oauth2"]}, providers)
    await brokerd.call("reload")
    await files.holds(value)


async def test_a_file_that_somebody_else_replaces_or_removes_is_written_again(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    """It is not followed where it is a link. Looking takes up to ten seconds, a renewal shortens that here."""
    other = files.target / "other"
    other.write_text("mine")
    (files.target / "token").symlink_to(other)
    files.describe({})
    await files.start()
    await files.holds(await brokerd.get("app"))
    assert (other.read_text(), (files.target / "token").is_symlink()) == ("mine", False)
    (files.target / "token").unlink()
    await files.holds(await brokerd.get("app"), within=15)


async def test_a_dead_token_is_never_left_and_the_next_one_comes_by_itself(
    brokerd: Brokerd, serving: Serving, files: Files
) -> None:
    """Law 5: without the daemon the file stays until its token expires, over restarts of the service too."""
    provider = await serving(OAuth2(Settings(access_lifetime=4.0)))
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    files.describe({"path": "token"}, {"path": "later"})
    await files.start()
    value, ends = await brokerd.get("app"), time.time() + 4
    await brokerd.kill()
    await files.holds(value, "later")
    assert files.text() is not None
    await files.said("its last tokens are used until they expire")
    await files.kill()
    files.launch()
    await files.holds(None, within=8)
    await files.holds(None, "later")
    assert time.time() <= ends + 2
    await files.said("its token has expired", times=2)
    await brokerd.start()
    await until(lambda: files.text() not in (None, value))


async def test_a_field_that_a_token_lacks_is_told_and_harms_no_other_file(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    files.describe({"path": "token"}, {"path": "broken", "template": "{fields.instance_url}"})
    await files.start()
    await files.holds(await brokerd.get("app"))
    assert files.text("broken") is None
    await files.said("the token has no fields.instance_url")
    files.describe({"path": "token"}, {"path": "broken", "template": "{grant}"})
    files.reload()
    await files.holds("app", "broken")


async def test_a_reload_is_all_or_nothing_and_takes_what_is_no_longer_named(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    files.describe({"path": "one"}, {"path": "two"})
    await files.start()
    value = await brokerd.get("app")
    files.describe({"path": "two"}, {"path": "three", "format": "yaml"})
    files.reload()
    await files.said("expected one of token, header, json, env")
    assert (files.text("one"), files.text("two"), files.text("three")) == (value, value, None)
    files.describe({"path": "two", "format": "header"}, {"path": "three"})
    files.reload()
    await files.holds(value, "three")
    await files.holds(f"Authorization: Bearer {value}\n", "two")
    await files.holds(None, "one")
    await files.stop()
    files.describe({"path": "two"})
    await files.start()
    await files.holds(None, "three")
    await files.holds(value, "two")


async def test_a_downscoped_token_is_followed_too(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    files.describe({"path": "token"}, {"path": "narrow", "scope": ["read"]})
    await files.start()
    narrow = await brokerd.get("app", scope=["read"])
    await files.holds(narrow, "narrow")
    assert narrow != files.text()


async def test_a_folder_that_comes_later_is_waited_for(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    files.describe({"path": "sub/token"})
    files.launch()
    await files.said("the folder")
    (files.target / "sub").mkdir(mode=0o755)
    await files.holds(await brokerd.get("app"), "sub/token")


async def test_two_services_do_not_fight_over_a_file(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    files.describe({})
    await files.start()
    code, said = await files.run("--once")
    assert (code, "another process keeps these files" in said) == (2, True)
