# Reads the configuration: brokerd.toml, conf.d/*.toml and recipes beside it, into checked settings: all or nothing.
# Nothing here reaches for the network or reads a secret: a secret is named here and read by edge/secrets.py.
from __future__ import annotations

from pathlib import Path

from brokerd.config.daemon import read_daemon
from brokerd.config.grants import check_keys, check_subjects, read_grant
from brokerd.config.providers import read_provider
from brokerd.config.rules import read_rule
from brokerd.config.settings import Configuration, DaemonSettings, GrantSettings, ProviderSettings
from brokerd.config.tables import BUILT_IN_RECIPES, DEFAULT_CONFIG, Recipes, Tables, Within, drop_ins

__all__ = [
    "BUILT_IN_RECIPES",
    "DEFAULT_CONFIG",
    "Configuration",
    "DaemonSettings",
    "GrantSettings",
    "ProviderSettings",
    "daemon_settings",
    "load",
]


def daemon_settings(path: str | Path) -> DaemonSettings:
    """The [daemon] table alone, whatever is wrong with the others. Raises ConfigError."""
    tables = Tables()
    for file in (Path(path), *drop_ins(Path(path))):
        tables.take(file)
    return read_daemon(tables.daemon, Path(path))


def load(path: str | Path) -> Configuration:
    """The whole configuration, or ConfigError: all or nothing (law 14)."""
    main = Path(path)
    tables = Tables()
    tables.take(main)
    for file in drop_ins(main):
        tables.take(file)
    recipes = Recipes(main.parent / "recipes")
    providers = {}
    for name, (file, raw) in tables.named["providers"].items():
        with Within(file, f"providers.{name}"):
            providers[name] = read_provider(name, raw, recipes, tables.exposed.get(file))
    grants = {}
    for name, (file, raw) in tables.named["grants"].items():
        with Within(file, f"grants.{name}"):
            grants[name] = read_grant(name, raw, providers, tables.exposed.get(file))
    for check in (check_subjects, check_keys):
        for name, error in check(grants):
            raise error.within(f"grants.{name}", str(tables.named["grants"][name][0]))
    rules = []
    for file, index, raw in tables.allow:
        with Within(file, f"allow[{index}]"):
            rules.append(read_rule(raw, grants, f"{file}: allow[{index}]"))
    return Configuration(str(main), read_daemon(tables.daemon, main), providers, grants, tuple(rules))
