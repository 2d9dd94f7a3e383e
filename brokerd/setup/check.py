# `brokerd --check`: finds all mistakes in a configuration and in the files, users and directories that it names,
# without the network. Each mistake has file, line and key.
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from brokerd.config.line_numbers import line_of, line_of_syntax
from brokerd.config.load import places, read
from brokerd.config.loopback import is_address, is_loopback
from brokerd.config.settings import Configuration, DaemonSettings, ProviderSettings
from brokerd.core.access.policy import OVERFLOW_ID, Selector
from brokerd.core.ports import TransportError
from brokerd.core.secret import SecretSource
from brokerd.core.validation import ConfigError, as_one
from brokerd.edge.files import ownership
from brokerd.edge.files.secret_sources import SecretUnreadable, doubtful, read_secret
from brokerd.edge.http.connection import PLAIN_HTTP, check
from brokerd.edge.peer.accounts import group_id, is_group, ourselves, user_id
from brokerd.setup.installation import (
    as_config_error,
    http_settings,
    key_sources,
    read_key,
    socket_path,
    state_path,
    store_http_settings,
)
from brokerd.setup.layout import in_use, state_in_use

Files = Mapping[tuple[str, str], Path]


def check_configuration(path: str) -> str:
    """A line that says that there are no mistakes. Raises ConfigError, with all mistakes."""
    configuration, errors = read(path)
    if configuration is not None:
        errors = [*errors, *mistakes(configuration, places(path), started=_can_start(errors))]
    if errors or configuration is None:
        raise as_one(errors)
    return f"{path}: the configuration is right: {counted(configuration)}"


def warnings(path: str) -> Iterator[ConfigError]:
    """What brokerd accepts although it is likely to be a mistake."""
    configuration, errors = read(path)
    if configuration is None:
        return
    yield from unknown_callers(configuration)
    if _can_start(errors):
        yield from _of_socket(configuration)
    files = places(path)
    for provider in configuration.providers.values():
        for key, host in _plain_urls(provider):
            if not is_loopback(host) and not is_address(host):
                words = f"if {host} is not this machine, brokerd sends nothing there: {PLAIN_HTTP}"
                yield ConfigError(words, key=key, file=str(files["providers", provider.name]))
    for place, key, source in _secrets(configuration):
        if _can_be_checked(source):
            with contextlib.suppress(SecretUnreadable):  # which is a mistake
                if (doubt := doubtful(source)) is not None:
                    yield ConfigError(doubt, key=key, file=str(files[place]))


def _secrets(configuration: Configuration) -> Iterator[tuple[tuple[str, str], str, SecretSource]]:
    """Each secret with the place of its table and its key."""
    for grant in configuration.grants.values():
        yield from ((("grants", grant.name), f"grants.{grant.name}.{key}", source) for key, source in grant.sources)
    if (store := configuration.store) is not None and store.password is not None:
        yield ("store", ""), "store.password", store.password


def located(error: ConfigError) -> str:
    """The error with its line if that is known: `file:line: key: what is wrong`."""
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
    """Mistakes in what the configuration names: URLs, certificates, secrets; if `started`, also key and state
    directory."""
    path = configuration.path
    for provider in configuration.providers.values():
        file = str(files["providers", provider.name])
        try:
            check(http_settings(provider))
        except TransportError as error:
            yield ConfigError(error.reason, key=f"providers.{provider.name}", file=file)
        for key, host in _plain_urls(provider):
            if is_address(host) and not is_loopback(host):
                yield ConfigError(PLAIN_HTTP, key=key, file=file)
    for grant in configuration.grants.values():
        for key, source in grant.sources:
            if _can_be_checked(source):
                yield from _unreadable(str(files["grants", grant.name]), f"grants.{grant.name}.{key}", source)
    for command in configuration.on_event:
        file, _, key = command.place.rpartition(": ")
        for fault in ownership.faults_of_command(command.command[0], _owner(configuration)):
            yield ConfigError(fault, key=f"{key}.command", file=file)
    yield from _of_store(configuration, files)
    if not started:
        return
    for source in key_sources(configuration)[:1]:
        if _can_be_checked(source):
            try:
                read_key(path, source)
            except ConfigError as error:
                yield error
    yield from _of_state(path, configuration.daemon)


def _of_store(configuration: Configuration, files: Files) -> Iterator[ConfigError]:
    """Mistakes in the files that [store] names."""
    if (store := configuration.store) is None:
        return
    file = str(files["store", ""])
    try:
        check(store_http_settings(store))
    except TransportError as error:
        yield ConfigError(error.reason, key="store", file=file)
    if store.key_file is not None:
        yield from _unreadable(file, "store.key_file", SecretSource(file=store.key_file))
    if store.password is not None and _can_be_checked(store.password):
        yield from _unreadable(file, "store.password", store.password)


def unknown_callers(configuration: Configuration) -> Iterator[ConfigError]:
    """Users and groups in rules that match nobody."""
    for rule in configuration.rules:
        file, _, key = rule.place.rpartition(": ")
        for words in match_nobody(rule.callers):
            yield ConfigError(words, key=f"{key}.caller", file=file)


def match_nobody(callers: Iterable[Selector]) -> Iterator[str]:
    """Why a caller matches nobody: its user or group does not exist, or has the number of those without one. The user
    of a unit may exist only while the unit runs."""
    for caller in callers:
        for kind, name, number_of in (("user", caller.user, user_id), ("group", caller.group, group_id)):
            number = None if name is None else number_of(name)
            if name is not None and number is None and caller.unit is None:
                yield f"there is no {kind} {name} on this machine, so this caller matches nobody"
            if number == OVERFLOW_ID:
                why = f"the {kind} {name} is {number}, which the kernel shows for everybody that has no number here"
                to_fix = f"run the program as a {kind} of its own, and name that here"
                yield f"{why}, so this caller matches nobody; {to_fix}"


def _unreadable(file: str, key: str, source: SecretSource) -> Iterator[ConfigError]:
    try:
        with as_config_error(file, key):
            read_secret(source)
    except ConfigError as error:
        yield error


def _of_state(path: str, settings: DaemonSettings) -> Iterator[ConfigError]:
    """Why brokerd could not use its state directory. A missing directory is created at the start."""
    folder = state_in_use(None, path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # only brokerd may look there
        owner = folder.stat().st_uid
        for fault in ownership.faults_of_state(folder, owner):
            yield ConfigError(fault, key="daemon.state_dir", file=path)
        if not folder.is_dir():
            yield ConfigError(f"{folder} is not a directory; write the path of one", key="daemon.state_dir", file=path)
    if settings.state_dir is not None and (above := _hinders(folder)) is not None:
        words = (
            f"{folder} does not exist, and the user {ourselves().name} cannot create it in {above}; create it yourself"
        )
        yield ConfigError(words, key="daemon.state_dir", file=path)


def _hinders(folder: Path) -> Path | None:
    """The directory in which we cannot create the folder; None if we can, or do not know."""
    with contextlib.suppress(OSError):  # a closed directory on the way: only brokerd itself may look there
        if not folder.exists():
            above = next(each for each in folder.parents if each.exists())
            return None if above.is_dir() and os.access(above, os.W_OK | os.X_OK) else above
    return None


def _of_socket(configuration: Configuration) -> Iterator[ConfigError]:
    """Why brokerd could not listen at its own socket. A socket of systemd needs none of this."""
    settings, path = configuration.daemon, configuration.path
    environ = in_use(path)[1]
    owner = _owner(configuration)
    with contextlib.suppress(PermissionError):  # only brokerd itself may look there
        for fault in ownership.faults_of_socket(socket_path(settings, environ).parent, owner):
            yield ConfigError(fault, key="daemon.socket", file=path)
    if (group := settings.socket_group) is not None and not is_group(group):
        words = f"there is no group {group} on this machine; write one that exists"
        yield ConfigError(words, key="daemon.socket_group", file=path)


def _owner(configuration: Configuration) -> int:
    """Who brokerd runs as, as far as that is known."""
    with contextlib.suppress(OSError):
        return state_path(configuration, in_use(configuration.path)[1]).stat().st_uid
    return os.geteuid()


def _can_start(errors: Iterable[ConfigError]) -> bool:
    """Whether the [daemon] table has no mistakes."""
    return not any(each.key.startswith("daemon") for each in errors)


def _can_be_checked(source: SecretSource) -> bool:
    """A command may need the network; systemd gives its credentials to the unit alone; only a running brokerd has
    tokens."""
    if source.command is not None or source.grant is not None:
        return False
    return source.credential is None or "CREDENTIALS_DIRECTORY" in os.environ


def _plain_urls(provider: ProviderSettings) -> Iterator[tuple[str, str]]:
    """Key and host of each URL without TLS, unless insecure_http allows it."""
    dialect = provider.dialect
    urls = {**dialect.endpoints, **({"issuer": dialect.issuer} if dialect.issuer else {})}
    hosts = {host for url in urls.values() if (parts := urlsplit(url)).scheme == "http" and (host := parts.hostname)}
    if not provider.insecure_http:
        yield from ((f"providers.{provider.name}", host) for host in sorted(hosts))
