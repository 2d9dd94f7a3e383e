# brokerctl explain names the proxies that add the token of a grant, and says whether the process may use them.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brokerd.config import proxies
from brokerd.ctl.commands.explain import DESCRIBED, _proxies

TABLE = """\
[proxies.api]
grant = "ix"
upstream = "https://api.example"
socket = "/run/x"
caller = { user = "portal", unit = "portal.service" }
[proxies.other]
grant = "other"
upstream = "https://api.example"
listen = "127.0.0.1:1"
caller = { uid = 0 }
"""


def found(unit: str | None) -> dict[str, Any]:
    who = {"pid": 7, "uid": 1000, "gids": [1000], "user": "portal", "groups": ["portal"], "foreign": False}
    return {"grant": "ix", "caller": {**who, **dict.fromkeys(DESCRIBED), "unit": unit, "unread": {}}}


def test_it_says_whether_the_process_may_use_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "FOLDER", tmp_path)
    assert list(_proxies(found("portal.service"))) == []
    (tmp_path / "ix.toml").write_text(TABLE)
    said = f"{tmp_path / 'ix.toml'}: the proxy api adds its token; {{}} by this process, at /run/x"
    assert list(_proxies(found("portal.service"))) == [said.format("may be used")]
    assert list(_proxies(found(None))) == [said.format("may not be used")]
