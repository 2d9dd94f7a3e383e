# Reads the configuration (brokerd.toml, conf.d/*.toml and recipes beside it) into checked settings, all or nothing. It
# uses no network and reads no secret: edge/files/secret_sources.py does.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from brokerd.config import toml_pieces
from brokerd.config.daemon import read_daemon
from brokerd.config.errors import Errors
from brokerd.config.grants import GrantFile, check_keys, check_tokens_of_grants, read_grant
from brokerd.config.on_event import MOST, read_on_event
from brokerd.config.providers import read_provider
from brokerd.config.recipes import Recipes
from brokerd.config.rules import read_rule
from brokerd.config.settings import (
    Configuration,
    DaemonSettings,
    GrantSettings,
    ListenSettings,
    ProviderSettings,
    StoreSettings,
)
from brokerd.config.sockets import read_socket
from brokerd.config.store import read_store
from brokerd.config.toml_files import Tables, drop_ins
from brokerd.core.access.policy import Rule
from brokerd.core.alerts import OnEvent
from brokerd.core.validation import ConfigError, as_one, convert

ONE_KEY = (
    "a fleet needs one key on all hosts, and each host would make another one of a passphrase; write "
    'key = { file = "/etc/brokerd/key" } in [daemon], then: brokerctl key rotate, and add [store] after that'
)


def places(path: str | Path) -> dict[tuple[str, str], Path]:
    """The file in which each provider and grant stands, by ("providers" or "grants", its name), and ("store", "")."""
    tables = _tables(Path(path), Errors())
    found = {(kind, name): file for kind, named in tables.named.items() for name, (file, _) in named.items()}
    if tables.store:
        found["store", ""] = tables.store[0][0]
    return found


def daemon_settings(path: str | Path) -> DaemonSettings:
    """The [daemon] table alone, whatever is wrong with the others. Raises ConfigError."""
    tables = Tables()
    for file in (Path(path), *drop_ins(Path(path))):
        tables.take(file, Errors())
    return read_daemon(tables.daemon, Path(path))


def load(path: str | Path) -> Configuration:
    """The whole configuration (law 14). Raises ConfigError, with all mistakes."""
    configuration, errors = read(path)
    if errors or configuration is None:
        raise as_one(errors)
    return configuration


def read(path: str | Path) -> tuple[Configuration | None, Sequence[ConfigError]]:
    """All mistakes of the configuration, and its tables without mistakes; None if a file cannot be read."""
    main, errors = Path(path), Errors()
    tables = _tables(main, errors)
    if errors.unreadable:  # other mistakes may follow from that
        return None, errors
    recipes = Recipes(main.parent / "recipes")
    providers, grants, rules = dict[str, ProviderSettings](), dict[str, GrantSettings](), list[Rule]()
    for name, (file, raw) in tables.named["providers"].items():
        reader = partial(read_provider, name, recipes, tables.exposed.get(file))
        if (provider := errors.tried(file, f"providers.{name}", raw, reader)) is not None:
            providers[name] = provider
    alike = dict[tuple[str, ...], GrantSettings]()
    for name, (file, raw) in tables.named["grants"].items():
        tables.named["grants"][name] = (file, None)  # so that a hundred thousand tables go as their settings come
        exposed, raw = tables.exposed.get(file), toml_pieces.unpacked(raw)
        if isinstance(raw, dict) and _is_broken(raw.get("provider"), tables, providers):
            errors.tried(file, f"grants.{name}", raw, lambda raw: convert(raw, GrantFile))
        else:
            known = tables.named["providers"]
            grant = errors.tried(
                file, f"grants.{name}", raw, partial(read_grant, name, providers, exposed, known, alike)
            )
            if grant is not None:
                grants[name] = grant
    if len(grants) == len(tables.named["grants"]):
        for check in (check_tokens_of_grants, check_keys):
            found = ((tables.named["grants"][name][0], name, error) for name, error in check(grants))
            errors += [error.within(f"grants.{name}", str(file)) for file, name, error in found]
    for file, index, raw in tables.listed["allow"]:
        key = f"allow[{index}]"
        if rule := errors.tried(file, key, raw, partial(read_rule, tables.named["grants"], f"{file}: {key}")):
            rules.append(rule)
    commands = list[OnEvent]()
    for file, index, raw in tables.listed["on_event"][:MOST]:
        key = f"on_event[{index}]"
        if (command := errors.tried(file, key, raw, partial(read_on_event, f"{file}: {key}"))) is not None:
            commands.append(command)
    for file, index, _ in tables.listed["on_event"][MOST:]:
        errors.append(ConfigError(f"expected at most {MOST} of them", key=f"on_event[{index}]", file=str(file)))
    if len(tables.daemon) == 1:
        file, raw = tables.daemon[0]
        daemon = errors.tried(file, "daemon", raw, partial(_daemon, file))
    else:
        daemon = errors.tried(main, "", None, lambda _: read_daemon(tables.daemon, main))
    http, credentials = (
        errors.tried(main, "", found, partial(read_socket, name)) or ListenSettings()
        for name, found in tables.sockets.items()
    )
    daemon = daemon or DaemonSettings()
    listed, store = (tuple(rules), tuple(commands)), _store(tables, errors)
    if store is not None and daemon.passphrase:
        errors.append(ConfigError(ONE_KEY, key="store", file=str(tables.store[0][0])))
    return Configuration(str(main), daemon, providers, grants, *listed, http, credentials, store), errors


def _store(tables: Tables, errors: Errors) -> StoreSettings | None:
    for file, _ in tables.store[1:]:
        words = f"stands in {tables.store[0][0]} too; keep one of them"
        errors.append(ConfigError(words, key="store", file=str(file)))
    for file, raw in tables.store:
        return errors.tried(file, "store", raw, read_store)
    return None


def _tables(main: Path, errors: Errors) -> Tables:
    """The tables of all files that can be read."""
    tables = Tables()
    files = errors.tried(main, "", None, lambda _: [main, *drop_ins(main)])
    errors.unreadable = files is None
    for file in files or [main]:
        if errors.tried(file, "", file, partial(tables.take, errors=errors)) is None:
            errors.unreadable = True
    return tables


def _is_broken(name: object, tables: Tables, providers: Mapping[str, ProviderSettings]) -> bool:
    """Whether there is such a provider, and it has mistakes."""
    return isinstance(name, str) and name in tables.named["providers"] and name not in providers


def _daemon(file: Path, raw: Any) -> DaemonSettings:
    try:
        return read_daemon([(file, raw)], file)
    except ConfigError as error:
        raise ConfigError(error.message, key=error.key.removeprefix("daemon").lstrip(".")) from None
