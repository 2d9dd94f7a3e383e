# The [http] and [credentials] tables: sockets of their own for HTTP, and for the credentials of units; and the port at
# which metrics can be read.
from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from brokerd.config.settings import ListenSettings, TcpAddress
from brokerd.config.toml_files import within
from brokerd.core.validation import ConfigError, convert, expected

PORT_MOST = 65_535


class SocketFile(msgspec.Struct, forbid_unknown_fields=True):
    socket: str | None = None


class HttpFile(SocketFile, forbid_unknown_fields=True):
    metrics: str | None = None


TABLES: dict[str, type[SocketFile]] = {"http": HttpFile}  # any other: SocketFile


def read_socket(name: str, tables: list[tuple[Path, Any]]) -> ListenSettings:
    """The table `name`, from all files that have it. Raises ConfigError."""
    for file, _ in tables[1:]:
        raise ConfigError(f"stands in {tables[0][0]} too; keep one of them", key=name, file=str(file))
    for file, raw in tables:
        with within(file, name):
            table = convert(raw, TABLES.get(name, SocketFile))
            if table.socket is not None and not table.socket.startswith("/"):
                raise expected("an absolute path", table.socket, key="socket")
            metrics = table.metrics if isinstance(table, HttpFile) else None
            return ListenSettings(table.socket, None if metrics is None else _address(metrics))
    return ListenSettings()


def _address(text: str) -> TcpAddress:
    """Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if is_bracketed else host)
        fits = bool(colon) and is_bracketed == (address.version == 6) and port.isascii() and port.isdigit()
    except ValueError:
        fits = False
    if not fits or int(port) > PORT_MOST:
        words = 'an IP address and a port, such as "127.0.0.1:9464" or "[::1]:9464"'
        raise expected(words, text, key="metrics")
    return TcpAddress(str(address), int(port))
