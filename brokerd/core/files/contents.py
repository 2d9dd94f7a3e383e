# What a file with a token contains, in each format. A value can never break out of its place: what a format cannot hold
# is refused. Pure.
from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from brokerd.core.files.template import Template, Unfit, env_word, one_line

NAME = re.compile(r"[^A-Z0-9]")


@dataclass(frozen=True, slots=True, repr=False)
class Values:
    """What brokerd has given for a grant: the token and what belongs to it. All of it is secret."""

    grant: str
    access_token: str
    token_type: str
    expires_at: float | None
    header: Mapping[str, str]
    fields: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Values(grant={self.grant!r}, ***)"


@dataclass(frozen=True, slots=True)
class Contents:
    """The format of a file: a name of FORMATS, or a template. `newline`: the file ends with a line break."""

    format: str = "token"
    template: Template | None = None
    newline: bool = False

    def of(self, values: Values) -> bytes:
        """Raises Unfit, whose text holds no value."""
        text = FORMATS[self.format](values) if self.template is None else self.template.of(by_name(values))
        return f"{text}\n".encode() if self.newline else text.encode()


def by_name(values: Values) -> dict[str, str]:
    """What placeholders stand for."""
    found = {"access_token": values.access_token, "token_type": values.token_type, "grant": values.grant}
    if values.expires_at is not None:
        found["expires_at"] = f"{values.expires_at:.0f}"
    return found | {f"fields.{name}": value for name, value in values.fields.items()}


def _token(values: Values) -> str:
    return one_line(values.access_token, "access_token")


def _header(values: Values) -> str:
    return "\n".join(f"{one_line(name, 'header')}: {one_line(line, name)}" for name, line in values.header.items())


def _json(values: Values) -> str:
    found = {"grant": values.grant, "access_token": values.access_token, "token_type": values.token_type}
    return json.dumps({**found, "expires_at": values.expires_at, "fields": dict(values.fields)})


def _env(values: Values) -> str:
    """For EnvironmentFile= of systemd and for `.` of a shell. The names of fields get a prefix: no field can become
    PATH or LD_PRELOAD."""
    named = {"ACCESS_TOKEN": values.access_token, "TOKEN_TYPE": values.token_type}
    if values.expires_at is not None:
        named["EXPIRES_AT"] = f"{values.expires_at:.0f}"
    for name, value in values.fields.items():
        variable = f"FIELD_{NAME.sub('_', name.upper())}"
        if variable in named:
            raise Unfit(f"two fields would become the variable {variable}; use a template")
        named[variable] = value
    return "\n".join(f"{name}={env_word(value, name)}" for name, value in named.items())


FORMATS: dict[str, Callable[[Values], str]] = {"token": _token, "header": _header, "json": _json, "env": _env}
ENDS_WITH_NEWLINE = {"token": False, "header": True, "json": True, "env": True}  # unless the file says otherwise
