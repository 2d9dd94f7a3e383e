# The [store] table: the etcd that the hosts of a fleet share, and what this host is called in the fleet. Without the
# table there is only the store in the state directory.
from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from brokerd.config.loopback import is_address, is_loopback
from brokerd.config.secrets import SourceFile, source_of
from brokerd.config.settings import CLOCK_DIFFERENCE, StoreSettings
from brokerd.config.toml_files import is_there
from brokerd.core.fleet.layout import NAME
from brokerd.core.secret import SecretSource
from brokerd.core.timing.duration import Duration
from brokerd.core.validation import ConfigError, convert, expected

HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
OF_NOBODY = ("localhost", "localhost.localdomain")  # what many machines are called that nobody gave a name
A_NAME = "1 to 64 letters, digits, dots, dashes and underscores"
A_URL = 'a URL of scheme, host and port, such as "https://10.0.0.1:2379"'
PLAIN = (
    "plain http:// goes to loopback addresses only: records are sealed, but everybody on the way could read the "
    "password and the names of grants, and could write claims; have etcd serve TLS, and write https://"
)


class StoreFile(msgspec.Struct, forbid_unknown_fields=True):
    etcd: list[str]
    fleet: str
    name: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    user: str | None = None
    password: Any = None
    offline: Duration | None = None
    clock_difference: Duration = Duration(CLOCK_DIFFERENCE)


def read_store(raw: Any) -> StoreSettings:
    table = convert(raw, StoreFile, secret="@" in str(raw))  # which is how a URL has a password in it
    _check_names(table)
    _check_files(table)
    for key, other in (("user", "password"), ("password", "user")):
        if getattr(table, key) is not None and getattr(table, other) is None:
            raise ConfigError(f"{key} needs {other} too; add {other}, or remove {key}", key=key)
    if table.user == "":
        raise expected("the name of a user of etcd", table.user, key="user")
    for key in ("offline", "clock_difference"):
        if getattr(table, key) == 0:
            raise expected("a duration of more than 0", 0, key=key)
    return StoreSettings(
        etcd=_endpoints(table.etcd),
        fleet=table.fleet,
        name=_own_name() if table.name is None else table.name,
        ca_file=table.ca_file,
        cert_file=table.cert_file,
        key_file=table.key_file,
        user=table.user,
        password=None if table.password is None else _password(table.password),
        offline=None if table.offline is None else float(table.offline),
        clock_difference=float(table.clock_difference),
    )


def _check_names(table: StoreFile) -> None:
    for key in ("fleet", "name"):
        if (value := getattr(table, key)) is not None and not NAME.fullmatch(value):
            raise expected(A_NAME, value, key=key)


def _own_name() -> str:
    """The name of this machine, which must be one that no other host of the fleet has."""
    name = socket.gethostname()
    if name in OF_NOBODY or not NAME.fullmatch(name):
        words = f"this machine is called {name!r}, which is no name of a host in a fleet; write one here that no other"
        raise ConfigError(f'{words} host has, such as name = "web-1"', key="name")
    return name


def _check_files(table: StoreFile) -> None:
    for key, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(table, key) and not getattr(table, other):
            raise ConfigError(f"{key} needs {other} too; add {other}, or remove {key}", key=key)
    for key in ("ca_file", "cert_file", "key_file"):
        if (path := getattr(table, key)) is not None and not (path.startswith("/") and is_there(Path(path))):
            raise expected("the absolute path of a file that exists", path, key=key)
    files = [key for key in ("ca_file", "cert_file") if getattr(table, key) is not None]
    if files and table.etcd and not any(each.startswith("https:") for each in table.etcd):
        raise ConfigError("is only for https:// URLs, and etcd names none; remove it", key=files[0])


def _endpoints(urls: list[str]) -> tuple[str, ...]:
    if not urls:
        raise expected(f"{A_URL}, one for each server of the cluster", urls, key="etcd")
    for number, url in enumerate(urls):
        key = f"etcd[{number}]"
        parts = _split(url, key)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ConfigError(PLAIN, key=key)
        if url in urls[:number]:
            raise ConfigError("stands there twice; remove one of them", key=key)
    return tuple(urls)


def _split(url: str, key: str) -> SplitResult:
    """Raises ConfigError. A URL with a user may have a password, so it is not shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise expected(A_URL, url, key=key, show="@" not in url) from None
    if parts.username is not None or parts.password is not None:
        words = "a URL without user and password, which have keys of their own: user = …, password = { file = … }"
        raise expected(words, url, key=key, show=False)
    is_host = is_address(host) or HOST.fullmatch(host)
    if parts.scheme not in ("http", "https") or not is_host or url.split("://", 1)[1] != parts.netloc:
        raise expected(f"{A_URL}, and nothing behind the port", url, key=key, show="@" not in url)
    if not port:
        raise expected(f"{A_URL}; write the port, which is 2379 unless etcd was told another one", url, key=key)
    return parts


def _password(raw: object) -> SecretSource:
    if not isinstance(raw, dict):
        words = 'a table with one of file, credential, env, command: password = { file = "/etc/brokerd/etcd-password" }'
        raise expected(words, raw, key="password", show=False)
    table = convert(raw, SourceFile, "password", secret=True)
    return source_of(table, "password", 'password = { file = "/etc/brokerd/etcd-password" }')
