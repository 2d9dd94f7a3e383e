# Where a secret is to be had, as written: text, or a table with one way to it. Reading it is edge/secrets.py's matter.
from __future__ import annotations

import msgspec

from brokerd.core.secret import Secret, SecretSource
from brokerd.core.typed import ConfigError, convert, expected


class SourceFile(msgspec.Struct, forbid_unknown_fields=True):
    file: str | None = None
    credential: str | None = None
    env: str | None = None
    command: list[str] | None = None


def secret_of(raw: object, key: str) -> SecretSource:
    if isinstance(raw, str):
        if not raw:
            raise ConfigError("an empty secret", key=key)
        return SecretSource(text=Secret(raw))
    if not isinstance(raw, dict):
        raise expected("text, or a table with one of file, credential, env, command", raw, key=key, show=False)
    return source_of(convert(raw, SourceFile, key, secret=True), key, f'{key} = {{ file = "…" }}')


def source_of(table: SourceFile, key: str, example: str) -> SecretSource:
    said = {name: value for name in SourceFile.__struct_fields__ if (value := getattr(table, name)) is not None}
    if len(said) != 1:
        found = " and ".join(said) or "none"
        words = f"expected exactly one of file, credential, env, command; found {found}: write {example}"
        raise ConfigError(words, key=key)
    if table.file is not None and not table.file.startswith("/"):
        raise expected("an absolute path", table.file, key=f"{key}.file", show=False)  # what stands there may be it
    if table.command is not None and not (table.command and table.command[0].startswith("/")):
        raise expected("a command whose program is an absolute path", table.command, key=f"{key}.command")
    if table.credential is not None and ("/" in table.credential or table.credential in ("", ".", "..")):
        raise expected("the name of a systemd credential", table.credential, key=f"{key}.credential", show=False)
    return SecretSource(None, table.file, table.credential, table.env, tuple(table.command) if table.command else None)
