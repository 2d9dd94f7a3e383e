# `brokerd --check`: everything that can be said of a configuration, and of what it names, without the network. All
# mistakes are named at once, each with file, line and key.
from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from brokerd.config import Configuration, DaemonSettings, ProviderSettings, places, read
from brokerd.config.lines import line_of, line_of_syntax
from brokerd.core.ports import TransportError
from brokerd.core.secret import SecretSource
from brokerd.core.typed import ConfigError
from brokerd.edge import place
from brokerd.edge.accounts import is_group, is_user, ourselves
from brokerd.edge.connection import PLAIN_HTTP, check
from brokerd.edge.secrets import SecretUnreadable, doubtful, read_secret
from brokerd.installation import as_config_error, http_settings, key_sources, read_key, socket_path, state_path
from brokerd.installing import in_use, state_in_use

Files = Mapping[tuple[str, str], Path]


def check_configuration(path: str) -> str:
    """A line that says that it is right. Raises ConfigError, the others with it."""
    configuration, errors = read(path)
    if configuration is not None:
        errors = [*errors, *mistakes(configuration, places(path), started=_can_start(errors))]
    if errors or configuration is None:
        errors[0].others = tuple(errors[1:])
        raise errors[0]
    return f"{path}: the configuration is right: {counted(configuration)}"


def warnings(path: str) -> Iterator[ConfigError]:
    """What brokerd accepts, and is likely to be a mistake."""
    configuration, errors = read(path)
    if configuration is None:
        return
    yield from strangers(configuration)
    if _can_start(errors):
        yield from _of_socket(configuration)
    files = places(path)
    for provider in configuration.providers.values():
        for key, host in _plain_urls(provider):
            if not _is_loopback(host) and not _is_address(host):
                words = f"unless {host} is this machine, nothing is sent: {PLAIN_HTTP}"
                yield ConfigError(words, key=key, file=str(files["providers", provider.name]))
    for grant in configuration.grants.values():
        for key, source in filter(lambda each: _can_be_checked(each[1]), grant.sources):
            with contextlib.suppress(SecretUnreadable):  # which is a mistake
                if (doubt := doubtful(source)) is not None:
                    yield ConfigError(doubt, key=f"grants.{grant.name}.{key}", file=str(files["grants", grant.name]))


def located(error: ConfigError) -> str:
    """The error with its line, where that is found: `file:line: key: what is wrong`."""
    line = _line(error)
    return str(error) if line is None else str(ConfigError(error.message, key=error.key, file=f"{error.file}:{line}"))


def in_order(errors: Iterable[ConfigError]) -> list[ConfigError]:
    """By file and line."""
    return sorted(errors, key=lambda error: (error.file, _line(error) or 0))


def _line(error: ConfigError) -> int | None:
    if not error.key:
        return line_of_syntax(error.message)
    try:
        return line_of(Path(error.file).read_text(encoding="utf-8"), error.key)
    except (OSError, ValueError):
        return None


def counted(configuration: Configuration) -> str:
    counts = {"provider": configuration.providers, "grant": configuration.grants, "rule": configuration.rules}
    return ", ".join(f"{len(each)} {name}{'' if len(each) == 1 else 's'}" for name, each in counts.items())


def mistakes(configuration: Configuration, files: Files, *, started: bool) -> Iterator[ConfigError]:
    """In what a configuration names that is right in itself: URLs, certificates, secrets; and where `started`, key and
    state directory."""
    path = configuration.path
    for provider in configuration.providers.values():
        file = str(files["providers", provider.name])
        try:
            check(http_settings(provider))
        except TransportError as error:
            yield ConfigError(error.reason, key=f"providers.{provider.name}", file=file)
        for key, host in _plain_urls(provider):
            if _is_address(host) and not _is_loopback(host):
                yield ConfigError(PLAIN_HTTP, key=key, file=file)
    for grant in configuration.grants.values():
        for key, source in grant.sources:
            if _can_be_checked(source):
                yield from _unreadable(str(files["grants", grant.name]), f"grants.{grant.name}.{key}", source)
    if not started:
        return
    for source in key_sources(configuration)[:1]:
        if _can_be_checked(source):
            try:
                read_key(path, source)
            except ConfigError as error:
                yield error
    yield from _of_state(path, configuration.daemon)


def strangers(configuration: Configuration) -> Iterator[ConfigError]:
    """Users and groups of rules that are not there. A unit's user may be there while the unit runs only."""
    for rule in configuration.rules:
        file, _, key = rule.place.rpartition(": ")
        for caller in rule.callers:
            for kind, name, is_there in (("user", caller.user, is_user), ("group", caller.group, is_group)):
                if name is not None and caller.unit is None and not is_there(name):
                    yield ConfigError(f"there is no {kind} {name}: nobody matches", key=f"{key}.caller", file=file)


def _unreadable(file: str, key: str, source: SecretSource) -> Iterable[ConfigError]:
    try:
        with as_config_error(file, key):
            read_secret(source)
    except ConfigError as error:
        return [error]
    return []


def _of_state(path: str, settings: DaemonSettings) -> Iterator[ConfigError]:
    """What would keep brokerd from its state directory: one that is not there yet is made at the start."""
    folder = state_in_use(None, path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # only brokerd may look there
        owner = folder.stat().st_uid
        for fault in place.faults_of_state(folder, owner):
            yield ConfigError(fault, key="daemon.state_dir", file=path)
        if not folder.is_dir():
            yield ConfigError(f"{folder} is no directory; name another", key="daemon.state_dir", file=path)
    if settings.state_dir is not None and (above := _hinders(folder)) is not None:
        words = f"{folder} is not there, and {ourselves().name} cannot make it in {above}; make it, or name another"
        yield ConfigError(words, key="daemon.state_dir", file=path)


def _hinders(folder: Path) -> Path | None:
    """The directory where we cannot make what is missing of the folder; None where we can, or do not know."""
    with contextlib.suppress(OSError):  # a closed directory on the way: only brokerd itself may look there
        if not folder.exists():
            above = next(each for each in folder.parents if each.exists())
            return None if above.is_dir() and os.access(above, os.W_OK | os.X_OK) else above
    return None


def _of_socket(configuration: Configuration) -> Iterator[ConfigError]:
    """What would keep brokerd from listening. systemd's socket needs none of that."""
    settings, path = configuration.daemon, configuration.path
    environ = in_use(path)[1]
    owner = os.geteuid()
    with contextlib.suppress(OSError):  # who brokerd runs as, as far as that is known
        owner = state_path(configuration, environ).stat().st_uid
    with contextlib.suppress(PermissionError):  # only brokerd itself may look there
        for fault in place.faults_of_socket(socket_path(settings, environ).parent, owner):
            yield ConfigError(fault, key="daemon.socket", file=path)
    if (group := settings.socket_group) is not None and not is_group(group):
        words = f"there is no group {group} on this machine; name one that is there"
        yield ConfigError(words, key="daemon.socket_group", file=path)


def _can_start(errors: Iterable[ConfigError]) -> bool:
    """Whether it is known what [daemon] says."""
    return not any(each.key.startswith("daemon") for each in errors)


def _can_be_checked(source: SecretSource) -> bool:
    """A command may need the network; systemd gives its credentials to the unit alone."""
    return source.command is None and (source.credential is None or "CREDENTIALS_DIRECTORY" in os.environ)


def _plain_urls(provider: ProviderSettings) -> Iterator[tuple[str, str]]:
    """Key and host of each URL that has no TLS, where that is not wanted."""
    dialect = provider.dialect
    urls = {**dialect.endpoints, **({"issuer": dialect.issuer} if dialect.issuer else {})}
    hosts = {host for url in urls.values() if (parts := urlsplit(url)).scheme == "http" and (host := parts.hostname)}
    if not provider.insecure_http:
        yield from ((f"providers.{provider.name}", host) for host in sorted(hosts))


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def _is_loopback(host: str) -> bool:
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")
