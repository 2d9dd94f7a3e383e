# What doctor says of the files of brokerd-proxy.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from brokerd.config import proxies as files
from brokerd.config.toml_files import DEFAULT_CONFIG
from brokerd.core.access.policy import Action, Rule, Selector
from brokerd.doctor.finding import Finding, Level
from brokerd.doctor.proxies import forwarded
from brokerd.edge.systemd import units
from brokerd.edge.systemd.units import Unit
from tests.unit.doctor.test_findings import FACTS

KEYS = 'grant = "ix"\nupstream = "https://api.example"\nsocket = "/run/x"\ncaller = {{ user = "portal" }}\n{}'
TABLE = f"[proxies.api]\n{KEYS}"
UNIT = "brokerd-proxy@ix.service"
RULE = Rule(("ix",), (Selector(unit=UNIT),), frozenset({Action.GET}), place="x")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    path = tmp_path / "ix.toml"
    path.write_text(TABLE.format(""))
    return path


def look(
    *rules: Rule, grants: tuple[str, ...] = ("ix",), path: str = DEFAULT_CONFIG, unit: Unit | None = None
) -> list[Finding]:
    configuration = cast(Any, SimpleNamespace(grants=dict.fromkeys(grants), rules=rules))
    return list(forwarded(replace(FACTS, configuration=configuration, path=path, unit=unit)))


def test_a_proxy_with_a_rule_is_named_with_its_place(file: Path) -> None:
    (found,) = look(RULE)
    assert (found.level, found.found) == (Level.OK, f"{file}: api at /run/x")
    assert look(RULE, path="/other.toml") == []


def test_a_proxy_without_a_rule_or_a_grant_is_a_problem(file: Path) -> None:
    (found,) = look()
    assert found.level is Level.PROBLEM
    assert f"no rule gives {UNIT} the token of ix" in found.found
    assert f'unit = "{UNIT}"' in (found.remedy or "")
    (found,) = look(RULE, grants=("other",))
    assert "the grant ix of the proxy api is not in" in found.found
    file.write_text(TABLE.format('scope = ["read"]'))
    (found,) = look(replace(RULE, scope=("write",)))
    assert found.level is Level.PROBLEM
    (found,) = look(replace(RULE, scope=("read",)))
    assert found.level is Level.OK


def test_a_mistake_in_the_file_is_named(file: Path) -> None:
    file.write_text(TABLE.format('paths = ["x"]'))
    found = look(RULE)
    assert [each.level for each in found] == [Level.PROBLEM]
    assert "paths that begin with a slash" in found[0].found


def test_a_rule_that_gives_the_token_to_a_client_of_the_proxy_itself_is_a_warning(file: Path) -> None:
    file.write_text(TABLE.format("").replace("portal", "daemon"))
    for selector in (Selector(user="daemon"), Selector(uid=1), Selector(group="daemon")):
        (found,) = look(RULE, replace(RULE, callers=(selector,)))
        assert found.level is Level.WARNING
        assert "daemon may use the proxy api and a rule gives it the token of ix itself" in found.found
        assert "brokerctl explain ix --as daemon" in (found.remedy or "")
    (found,) = look(RULE, replace(RULE, callers=(Selector(user="bin"),)))
    assert found.level is Level.OK


@pytest.mark.parametrize("caller", ['user = "daemon"', "uid = 1"])
def test_a_proxy_that_runs_as_one_of_its_clients_is_a_warning(
    file: Path, monkeypatch: pytest.MonkeyPatch, caller: str
) -> None:
    file.write_text(TABLE.format("").replace('user = "portal"', caller))
    unit = Unit(UNIT, {"User": "daemon", "UnitFileState": "enabled", "ActiveState": "active"})
    monkeypatch.setattr(units, "find", lambda *_, **__: unit)
    (found,) = look(RULE, unit=unit)
    assert found.level is Level.WARNING
    assert f"is the user of {UNIT}" in found.found
    assert "a user of its own" in (found.remedy or "")
