# Reads the configuration: brokerd.toml, conf.d/*.toml and recipes beside it, into checked settings: all or nothing.
# Nothing here reaches for the network or reads a secret: a secret is named here and read by edge/secrets.py.
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from brokerd.config.daemon import read_daemon
from brokerd.config.errors import Errors
from brokerd.config.grants import GrantFile, check_keys, check_subjects, read_grant
from brokerd.config.providers import read_provider
from brokerd.config.rules import read_rule
from brokerd.config.settings import Configuration, DaemonSettings, GrantSettings, ProviderSettings
from brokerd.config.tables import BUILT_IN_RECIPES, DEFAULT_CONFIG, Recipes, Tables, drop_ins
from brokerd.core.policy import Rule
from brokerd.core.typed import ConfigError, convert

__all__ = [
    "BUILT_IN_RECIPES",
    "DEFAULT_CONFIG",
    "Configuration",
    "DaemonSettings",
    "GrantSettings",
    "ProviderSettings",
    "daemon_settings",
    "load",
    "places",
    "read",
]


def places(path: str | Path) -> dict[tuple[str, str], Path]:
    """The file in which each provider and grant stands, by ("providers" or "grants", its name)."""
    named = _tables(Path(path), Errors()).named
    return {(kind, name): file for kind, tables in named.items() for name, (file, _) in tables.items()}


def daemon_settings(path: str | Path) -> DaemonSettings:
    """The [daemon] table alone, whatever is wrong with the others. Raises ConfigError."""
    tables = Tables()
    for file in (Path(path), *drop_ins(Path(path))):
        tables.take(file, Errors())
    return read_daemon(tables.daemon, Path(path))


def load(path: str | Path) -> Configuration:
    """The whole configuration, or ConfigError: all or nothing (law 14). The error has the others with it."""
    configuration, errors = read(path)
    if errors or configuration is None:
        errors[0].others = tuple(errors[1:])
        raise errors[0]
    return configuration


def read(path: str | Path) -> tuple[Configuration | None, Sequence[ConfigError]]:
    """Everything that is wrong with the configuration, and those of its tables that are right; None where a file cannot
    be read."""
    main, errors = Path(path), Errors()
    tables = _tables(main, errors)
    if errors.unreadable:  # whatever else there is to say may be wrong
        return None, errors
    recipes = Recipes(main.parent / "recipes")
    providers, grants, rules = dict[str, ProviderSettings](), dict[str, GrantSettings](), list[Rule]()
    for name, (file, raw) in tables.named["providers"].items():
        reader = partial(_provider, name, recipes, tables.exposed.get(file))
        if (provider := errors.tried(file, f"providers.{name}", raw, reader)) is not None:
            providers[name] = provider
    for name, (file, raw) in tables.named["grants"].items():
        exposed = tables.exposed.get(file)
        if isinstance(raw, dict) and _is_broken(raw.get("provider"), tables, providers):
            errors.tried(file, f"grants.{name}", raw, lambda raw: convert(raw, GrantFile))
        else:
            known = tables.named["providers"]
            grant = errors.tried(file, f"grants.{name}", raw, partial(_grant, name, providers, exposed, known))
            if grant is not None:
                grants[name] = grant
    if len(grants) == len(tables.named["grants"]):
        for check in (check_subjects, check_keys):
            found = ((tables.named["grants"][name][0], name, error) for name, error in check(grants))
            errors += [error.within(f"grants.{name}", str(file)) for file, name, error in found]
    for file, index, raw in tables.allow:
        key = f"allow[{index}]"
        if rule := errors.tried(file, key, raw, partial(_rule, tables.named["grants"], f"{file}: {key}")):
            rules.append(rule)
    if len(tables.daemon) == 1:
        file, raw = tables.daemon[0]
        daemon = errors.tried(file, "daemon", raw, partial(_daemon, file))
    else:
        daemon = errors.tried(main, "", None, lambda _: read_daemon(tables.daemon, main))
    return Configuration(str(main), daemon or DaemonSettings(), providers, grants, tuple(rules)), errors


def _tables(main: Path, errors: Errors) -> Tables:
    """Of all files that can be read."""
    tables = Tables()
    files = errors.tried(main, "", None, lambda _: [main, *drop_ins(main)])
    errors.unreadable = files is None
    for file in files or [main]:
        if errors.tried(file, "", file, partial(tables.take, errors=errors)) is None:
            errors.unreadable = True
    return tables


def _is_broken(name: object, tables: Tables, providers: Mapping[str, ProviderSettings]) -> bool:
    """Whether it is a provider that is there and has mistakes of its own."""
    return isinstance(name, str) and name in tables.named["providers"] and name not in providers


def _daemon(file: Path, raw: Any) -> DaemonSettings:
    try:
        return read_daemon([(file, raw)], file)
    except ConfigError as error:
        raise ConfigError(error.message, key=error.key.removeprefix("daemon").lstrip(".")) from None


def _provider(name: str, recipes: Recipes, exposed: ConfigError | None, raw: Any) -> ProviderSettings:
    return read_provider(name, raw, recipes, exposed)


def _grant(
    name: str,
    providers: Mapping[str, ProviderSettings],
    exposed: ConfigError | None,
    known: Collection[str],
    raw: Any,
) -> GrantSettings:
    return read_grant(name, raw, providers, exposed, known)


def _rule(grants: Collection[str], place: str, raw: Any) -> Rule:
    return read_rule(raw, grants, place)
