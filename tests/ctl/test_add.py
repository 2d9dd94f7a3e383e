# What add says where it cannot: usage, and a daemon that does not take what was written. tests/verify has the rest.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from brokerd_client import Denied, Misconfigured

from brokerd.ctl.add import registered, reload
from brokerd.ctl.terminal import Failed
from brokerd.dialects.oauth2.registration import Client
from brokerd.edge.drop_in import Files
from tests.client.daemon import Daemon
from tests.ctl.conftest import Run

CLIENT = Client("c-1", "none", "device_code")


def written(folder: Path) -> tuple[Files, Path]:
    (folder / "brokerd.toml").touch()
    path = folder / "conf.d" / "app.toml"
    made = Files()
    made.create({path: "[x]"}, folder / "brokerd.toml", private=frozenset())
    return made, path


def test_it_wants_a_url(brokerctl: Run) -> None:
    done = brokerctl("add")
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected --resource URL, or --issuer URL" in done.stderr


def test_a_configuration_that_is_not_there_is_said_before_anybody_is_asked(brokerctl: Run, tmp_path: Path) -> None:
    done = brokerctl("add", "--issuer", "https://nowhere.invalid", "--config", str(tmp_path / "brokerd.toml"))
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
    assert "the grant was not written" in done.stderr


def test_what_the_daemon_does_not_take_is_taken_back(daemon: Daemon, tmp_path: Path) -> None:
    def refuse(_params: dict[str, Any]) -> Any:
        raise Misconfigured("nothing has changed: another file is wrong")

    made, path = written(tmp_path)
    daemon.answers["reload"] = refuse
    with pytest.raises(Failed, match="the client c-1 stays registered"):
        reload(str(daemon.path), "app", made, registered(CLIENT))
    assert not path.parent.exists()


def test_who_may_not_reload_is_told_that_somebody_has_to(
    daemon: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def deny(_params: dict[str, Any]) -> Any:
        raise Denied("reload: only root may")

    made, path = written(tmp_path)
    daemon.answers["reload"] = deny
    reload(str(daemon.path), "app", made, registered(CLIENT))
    assert path.exists()
    assert capfd.readouterr().out.endswith("does not know of it yet (reload: only root may): brokerctl reload\n")
