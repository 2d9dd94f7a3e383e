# The [daemon] table.
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from brokerd.config.secrets import SourceFile, source_of
from brokerd.config.settings import DaemonSettings
from brokerd.config.tables import Within
from brokerd.core.admission import Limits
from brokerd.core.secret import SecretSource
from brokerd.core.typed import ConfigError, convert, expected

LIMITS = (
    "max_connections",
    "max_connections_per_user",
    "max_waiting_per_user",
    "max_rate_per_user",
)  # as in Limits
AUDIT = ("serve", "stop", "off")


class KeyFile(SourceFile):
    passphrase: bool | None = None


class DaemonFile(msgspec.Struct, forbid_unknown_fields=True):
    socket: str | None = None
    state_dir: str | None = None
    key: dict[str, Any] | None = None
    previous_key: dict[str, Any] | None = None
    socket_mode: str | None = None
    socket_group: str | None = None
    max_connections: int = 4_096
    max_connections_per_user: int | None = None
    max_waiting_per_user: int = 4_096
    max_rate_per_user: float = 5_000.0
    audit: str = "serve"
    audit_size: int = 64


def read_daemon(tables: list[tuple[Path, Any]], main: Path) -> DaemonSettings:
    merged: dict[str, Any] = {}
    for file, raw in tables:
        with Within(file, "daemon"):
            convert(raw, DaemonFile)
            if twice := sorted(set(merged) & set(raw)):
                raise ConfigError("stands in another file too; keep one of them", key=twice[0])
        merged.update(raw)
    file = tables[-1][0] if tables else main
    with Within(file, "daemon"):
        table = convert(merged, DaemonFile)
        mode = table.socket_mode or "0660"
        if not re.fullmatch(r"0?[0-7]{3}", mode):
            raise expected('an octal mode as text, such as "0660"', mode, key="socket_mode")
        for key in ("socket", "state_dir"):
            if (value := merged.get(key)) and not value.startswith("/"):
                raise expected("an absolute path", value, key=key)
        for key in LIMITS:
            if (number := getattr(table, key)) is not None and number < 1:
                raise expected("a number of 1 or more", number, key=key)
        if table.audit not in AUDIT:
            raise expected(f"one of {', '.join(AUDIT)}", table.audit, key="audit")
        if table.audit_size < 1:
            raise expected("a number of MiB, 1 or more", table.audit_size, key="audit_size")
        limits = Limits(*(getattr(table, key) for key in LIMITS))
        return DaemonSettings(
            socket=table.socket,
            state_dir=table.state_dir,
            key=None if table.key is None else _key(table.key),
            passphrase=table.key is not None and "passphrase" in table.key,
            previous_key=None if table.previous_key is None else _previous_key(table.previous_key),
            socket_mode=int(mode, 8),
            socket_group=table.socket_group,
            limits=limits,
            audit=table.audit,
            audit_size=table.audit_size,
        )


def _key(raw: dict[str, Any]) -> SecretSource | None:
    table = convert(raw, KeyFile, "key", secret=True)
    if table.passphrase is None:
        return source_of(table, "key", 'key = { file = "/etc/brokerd/key" }')
    if raw != {"passphrase": True}:
        raise ConfigError("expected a passphrase alone: write key = { passphrase = true }", key="key")
    return None


def _previous_key(raw: dict[str, Any]) -> SecretSource:
    table = convert(raw, SourceFile, "previous_key", secret=True)
    return source_of(table, "previous_key", 'previous_key = { file = "/etc/brokerd/key.old" }')
