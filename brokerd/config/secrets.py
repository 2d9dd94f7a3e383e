# The source of a secret, as configured: text, or a table with one source. edge/files/secret_sources.py reads secrets,
# broker/grant_tokens.py the tokens of other grants.
from __future__ import annotations

from dataclasses import replace

import msgspec

from brokerd.core.secret import Secret, SecretSource
from brokerd.core.validation import ConfigError, convert, expected


class SourceFile(msgspec.Struct, forbid_unknown_fields=True):
    file: str | None = None
    credential: str | None = None
    env: str | None = None
    command: list[str] | None = None


class CredentialFile(SourceFile, forbid_unknown_fields=True):
    """The source of a credential, which may also be another grant's access token, or a field of it."""

    grant: str | None = None
    field: str | None = None


WANTED = "text, or a table with one of file, credential, env, command, grant"


def secret_of(raw: object, key: str) -> SecretSource:
    """A credential of a grant."""
    if isinstance(raw, str):
        if not raw:
            raise expected("a secret", raw, key=key)
        return SecretSource(text=Secret(raw))
    if not isinstance(raw, dict):
        raise expected(WANTED, raw, key=key, show=False)
    table = convert(raw, CredentialFile, key, secret=True)
    if table.field is not None and table.grant is None:
        raise ConfigError(
            "only a token of another grant has fields; write grant too, or remove field", key=f"{key}.field"
        )
    source = source_of(table, key, f'{key} = {{ file = "…" }}')
    return replace(source, grant=table.grant, field=table.field)


def source_of(table: SourceFile, key: str, example: str) -> SecretSource:
    names = (*SourceFile.__struct_fields__, *(("grant",) if isinstance(table, CredentialFile) else ()))
    said = {name: value for name in names if (value := getattr(table, name)) is not None}
    if len(said) != 1:
        found = " and ".join(said) or "none"
        words = f"expected exactly one of {', '.join(names)}; found {found}: write {example}"
        raise ConfigError(words, key=key)
    if table.file is not None and not table.file.startswith("/"):
        raise expected("an absolute path", table.file, key=f"{key}.file", show=False)  # it may be the secret itself
    if table.command is not None and not (table.command and table.command[0].startswith("/")):
        raise expected("a command whose program is an absolute path", table.command, key=f"{key}.command")
    if table.credential is not None and ("/" in table.credential or table.credential in ("", ".", "..")):
        raise expected("the name of a systemd credential", table.credential, key=f"{key}.credential", show=False)
    return SecretSource(None, table.file, table.credential, table.env, tuple(table.command) if table.command else None)
