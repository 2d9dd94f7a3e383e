# The [daemon] table.
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from brokerd.config.secrets import SourceFile, source_of
from brokerd.config.settings import DaemonSettings
from brokerd.config.toml_files import within
from brokerd.core.access.admission import Limits
from brokerd.core.secret import SecretSource
from brokerd.core.timing.duration import Duration
from brokerd.core.validation import ConfigError, check_one_of, convert, expected

DEFAULTS = DaemonSettings()
LIMITS = ("max_connections", "max_connections_per_user", "max_waiting_per_user", "max_rate_per_user")  # as in Limits
AUDIT = ("serve", "stop", "off")


class KeyFile(SourceFile):
    passphrase: bool | None = None


class DaemonFile(msgspec.Struct, forbid_unknown_fields=True):
    socket: str | None = None
    state_dir: str | None = None
    key: dict[str, Any] | None = None
    previous_key: dict[str, Any] | None = None
    socket_mode: str = f"{DEFAULTS.socket_mode:04o}"
    socket_group: str | None = None
    max_connections: int = DEFAULTS.limits.connections
    max_connections_per_user: int | None = DEFAULTS.limits.connections_per_user
    max_waiting_per_user: int = DEFAULTS.limits.waiting_per_user
    max_rate_per_user: float = DEFAULTS.limits.rate_per_user
    audit: str = DEFAULTS.audit
    audit_size: int = DEFAULTS.audit_size
    warn_refresh_token: Duration = Duration(DEFAULTS.warn_refresh_token)
    warn_certificate: Duration = Duration(DEFAULTS.warn_certificate)


def read_daemon(tables: list[tuple[Path, Any]], main: Path) -> DaemonSettings:
    merged: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for file, raw in tables:
        with within(file, "daemon"):
            convert(raw, DaemonFile)
            if twice := sorted(set(merged) & set(raw)):
                raise ConfigError(f"is set in {files[twice[0]]} too; keep one of them", key=twice[0])
        merged.update(raw)
        files |= dict.fromkeys(raw, file)
    file = tables[-1][0] if tables else main
    with within(file, "daemon"):
        table = convert(merged, DaemonFile)
        if not re.fullmatch(r"0?[0-7]{3}", table.socket_mode):
            raise expected('an octal mode as text, such as "0660"', table.socket_mode, key="socket_mode")
        for key in ("socket", "state_dir"):
            if (value := merged.get(key)) and not value.startswith("/"):
                raise expected("an absolute path", value, key=key)
        for key in LIMITS:
            if (number := getattr(table, key)) is not None and number < 1:
                raise expected("a number of 1 or more", number, key=key)
        check_one_of(table.audit, AUDIT, "audit")
        if table.audit_size < 1:
            raise expected("a number of MiB, 1 or more", table.audit_size, key="audit_size")
        limits = Limits(*(getattr(table, key) for key in LIMITS))
        return DaemonSettings(
            socket=table.socket,
            state_dir=table.state_dir,
            key=None if table.key is None else _key(table.key),
            passphrase=table.key is not None and "passphrase" in table.key,
            previous_key=None if table.previous_key is None else _previous_key(table.previous_key),
            socket_mode=int(table.socket_mode, 8),
            socket_group=table.socket_group,
            limits=limits,
            audit=table.audit,
            audit_size=table.audit_size,
            warn_refresh_token=float(table.warn_refresh_token),
            warn_certificate=float(table.warn_certificate),
        )


def _key(raw: dict[str, Any]) -> SecretSource | None:
    table = convert(raw, KeyFile, "key", secret=True)
    if table.passphrase is None:
        return source_of(table, "key", 'key = { file = "/etc/brokerd/key" }')
    if raw != {"passphrase": True}:
        raise ConfigError("expected passphrase = true and nothing else; write key = { passphrase = true }", key="key")
    return None


def _previous_key(raw: dict[str, Any]) -> SecretSource:
    table = convert(raw, SourceFile, "previous_key", secret=True)
    return source_of(table, "previous_key", 'previous_key = { file = "/etc/brokerd/key.old" }')
