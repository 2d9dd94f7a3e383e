# The [metadata.NAME] tables of brokerd-proxy's FILE.toml: endpoints at which SDKs of clouds ask for credentials
# (docs/metadata.md), as checked values.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from brokerd.config.proxy_places import ProxyPlace, read_callers, read_listen
from brokerd.config.token_files import Source
from brokerd.core.access.policy import Selector
from brokerd.core.validation import ConfigError, check_one_of, convert, expected

# By kind: the keys that belong to it. Those with True must be there.
KINDS: Mapping[str, Mapping[str, bool]] = {
    "aws-container": {"authorization_file": False},
    "aws-imds": {"role": False, "region": False},
    "gce": {"email": True, "project": False, "scopes": False},
    "azure": {"resource": True, "header_file": False},
}
WITHOUT_SLASH = ("role", "region", "email", "project")  # they stand in paths


class EndpointTable(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    grant: str
    listen: str
    caller: Any
    authorization_file: str | None = None
    role: str | None = None
    region: str | None = None
    email: str | None = None
    project: str | None = None
    scopes: list[str] | None = None
    resource: str | None = None
    header_file: str | None = None


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """One endpoint. `values`: the keys of its kind. `word_file`: holds what the client must say.

    Its `source` and `callers` are like those of a proxy."""

    name: str
    source: Source
    place: ProxyPlace
    callers: tuple[Selector, ...]
    kind: str
    values: Mapping[str, Any]
    word_file: Path | None = None


def read_endpoint(name: str, raw: Any) -> EndpointSettings:
    """Raises ConfigError."""
    table = convert(raw, EndpointTable)
    check_one_of(table.kind, KINDS, "kind")
    if not table.grant:
        raise expected("the name of a grant", table.grant, key="grant")
    own = KINDS[table.kind]
    for keys in KINDS.values():
        for key in keys.keys() - own.keys():
            if getattr(table, key) is not None:
                kinds = " and ".join(kind for kind, known in KINDS.items() if key in known)
                raise ConfigError(f"belongs to {kinds}, not to {table.kind}; remove it", key=key)
    values = {key: getattr(table, key) for key in own}
    for key, must in own.items():
        if must and not values[key]:
            raise ConfigError(f"an endpoint of the kind {table.kind} needs this key", key=key)
        if key in WITHOUT_SLASH and (found := values[key]) is not None and ("/" in found or not found.isprintable()):
            raise expected("a name without slashes", found, key=key)
    word_file = values.pop("authorization_file", None) or values.pop("header_file", None)
    if word_file is not None and not word_file.startswith("/"):
        key = "authorization_file" if table.kind == "aws-container" else "header_file"
        raise expected("an absolute path", word_file, key=key)
    place = read_listen(table.listen)
    return EndpointSettings(
        name,
        Source(table.grant),
        place,
        read_callers(table.caller, place),
        table.kind,
        values,
        None if word_file is None else Path(word_file),
    )
