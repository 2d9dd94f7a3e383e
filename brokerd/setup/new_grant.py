# From the URL of a protected resource or an issuer to a provider and a grant: finds the authorization server, registers
# a client, and says what to write to the configuration. It writes nothing.
from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from brokerd.config.settings import Configuration
from brokerd.config.toml_files import NAME
from brokerd.core.exchange.outcomes import Done, Issued
from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Request
from brokerd.core.ports import Http, TransportError
from brokerd.core.secret import Secret
from brokerd.dialects.oauth2 import discovery, registration, resource_metadata
from brokerd.dialects.oauth2.browser_login import REDIRECT_URI
from brokerd.dialects.oauth2.registration import Client
from brokerd.dialects.oauth2.resource_metadata import Resource

OFFLINE = "offline_access"  # a scope: many servers give a login no refresh token without it
NO_METADATA = "check the URL of the issuer; if it has no metadata, name its token endpoint instead: --token-url URL"
REGISTRATION = "registration"  # the token with which a client's registration is changed (RFC 7592)


class CannotAdd(Exception):
    """It cannot be added; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where tokens come from: the authorization server, and the resource that they are for, if one was named."""

    metadata: Metadata
    resource: Resource | None


def name_for(url: str, configuration: Configuration, chosen: str | None) -> str:
    """The name of provider and grant: the one that was chosen, else the URL's host. Raises CannotAdd."""
    if not (chosen or urlsplit(url).hostname):
        raise CannotAdd(f"expected an https:// URL, found {reason(url)!r}")
    name = chosen or re.sub(r"[^A-Za-z0-9._-]+", "-", urlsplit(url).hostname or "").strip("-.")
    if not NAME.fullmatch(name):
        raise CannotAdd("expected a name of letters, digits, dots, dashes and underscores; choose one: --name NAME")
    for kind in ("providers", "grants"):
        if name in getattr(configuration, kind):
            raise CannotAdd(f"{name} is there already, among the {kind}; choose another one: --name NAME")
    return name


async def look(http: Http, url: str | None, issuer: str | None, *, person: bool = True) -> TokenSource:
    """Where tokens for the resource at `url` come from. `issuer`: which one, if there are several or no resource.
    `person`: a person must be able to log in. Raises CannotAdd."""
    guide = _Guide(http)
    found: Resource | None = None
    if url is not None:
        answered = await guide.follow(resource_metadata.learn(url))
        assert isinstance(answered, Resource)
        found = answered
        if issuer is None:
            issuer = _only(found.servers)
        elif found.servers and issuer not in found.servers:
            raise CannotAdd(f"{reason(issuer)} is none of the resource's own: {_listed(found.servers)}")
    assert issuer is not None, "neither a resource nor an issuer was named"
    metadata = await guide.follow(discovery.learn(issuer, None))
    assert isinstance(metadata, Metadata)
    if person and not registration.logins(metadata):
        raise CannotAdd(f"{reason(issuer)} has no login by a person, neither by device code nor in a browser")
    return TokenSource(metadata, found)


async def register(http: Http, place: TokenSource, name: str, scope: Sequence[str]) -> Client:
    """Registers a client. Raises CannotAdd."""
    if "registration_endpoint" not in place.metadata.endpoints:
        words = "registers no clients by itself: have one registered by hand, as a native application with the redirect"
        raise CannotAdd(f"{reason(place.metadata.issuer)} {words} URI {REDIRECT_URI}, and name it: --client-id ID")
    guide = _Guide(http, public=place.metadata.public)
    client = await guide.follow(registration.register(place.metadata, name, scope))
    assert isinstance(client, Client)
    return client


@dataclass(frozen=True, slots=True)
class Addition:
    """A provider and a grant of the same name. `about`: comments for the reader. `secrets`: by credential or purpose.
    `allow`: the users who may have the grant's tokens."""

    name: str
    about: Sequence[str]
    provider: Mapping[str, Any]
    grant: Mapping[str, Any]
    secrets: Mapping[str, Secret]
    allow: Sequence[str] = ()

    def with_client(self, client: Client) -> Addition:
        """The same with this client instead of any other."""
        own = {
            "grant_type": client.grant_type,
            "client_auth": client.auth_method,
            "credentials": {"client_id": client.id},
        }
        secrets = {"client_secret": client.secret, REGISTRATION: client.access_token}
        about = list(self.about)
        if client.access_token is not None:
            about.append(f"Its registration is changed at {reason(client.access_url or 'the server')} (RFC 7592).")
        given = {what: secret for what, secret in secrets.items() if secret is not None}
        return replace(self, about=about, grant={**own, **self.grant, **own}, secrets=given)

    def files(self, folder: Path) -> dict[Path, str]:
        """The files to write beside the configuration file in `folder`; the drop-in is the last."""
        paths = secret_files(folder, self.name, self.secrets)
        texts = {paths[what]: f"{secret.reveal()}\n" for what, secret in self.secrets.items()}
        own = {what: {"file": str(path)} for what, path in paths.items() if what != REGISTRATION}
        grant = {"provider": self.name, **self.grant, "credentials": {**self.grant.get("credentials", {}), **own}}
        lines = [f"# {line}" for line in self.about]
        lines += ["", "# Where tokens come from.", f"[providers.{_key(self.name)}]", *_pairs(self.provider)]
        lines += ["", f"# What applications ask for: brokerctl get {self.name}", f"[grants.{_key(self.name)}]"]
        lines += [*_pairs(grant), "", "# Who may have it. Without a rule only root and brokerd's own user may."]
        lines += _rule(self.name, self.allow)
        return {**texts, drop_in(folder, self.name): "\n".join(lines) + "\n"}


def drop_in(folder: Path, name: str) -> Path:
    return folder / "conf.d" / f"{name}.toml"


def secret_files(folder: Path, name: str, secrets: Iterable[str]) -> dict[str, Path]:
    """The files of the secrets."""
    return {what: folder / "secrets" / f"{name}.{what}" for what in secrets}


def at_server(
    place: TokenSource,
    client: Client,
    name: str,
    scope: Sequence[str],
    ca_file: str | None,
    allow: Sequence[str] = (),
    about: Sequence[str] = (),
) -> Addition:
    """A client's grant at an authorization server."""
    resource = place.resource.identifier if place.resource else None
    provider = {"dialect": "oauth2", "issuer": place.metadata.issuer, "ca_file": ca_file}
    addition = Addition(name, about, provider, {"scope": list(scope), "resource": resource}, {}, allow)
    return addition.with_client(client)


def _rule(name: str, users: Sequence[str]) -> list[str]:
    """A rule for these users; without users, in comments."""
    callers: list[dict[str, str]] = [{"user": user} for user in users] or [{"user": "…"}]
    rule = ["[[allow]]", f"grants = {_toml([name])}", f"caller = {_toml(callers if len(callers) > 1 else callers[0])}"]
    return rule if users else [f"#{line}" for line in rule]


class _Guide:
    """Runs an exchange without a broker. Once a public server has answered, whatever it names must be public."""

    def __init__(self, http: Http, *, public: bool = False) -> None:
        self._http = http
        self._public = public

    async def follow(self, questions: Generator[Any, Any, Any]) -> object:
        """What the exchange found. Raises CannotAdd for an outcome without a result."""
        try:
            step = next(questions)
            while True:
                assert isinstance(step, Request), "these exchanges send requests only"
                response = await self._http.send(replace(step, guarded=step.guarded or self._public))
                self._public = self._public or response.public
                step = questions.send(response)
        except StopIteration as stop:
            found: object = stop.value
        except TransportError as error:
            raise CannotAdd(error.reason) from None
        finally:
            questions.close()
        if (words := getattr(found, "reason", None)) is not None:
            raise CannotAdd(words.replace(discovery.NO_METADATA, NO_METADATA))
        assert not isinstance(found, Issued | Done)
        return found


def _only(servers: Sequence[str]) -> str:
    if not servers:
        raise CannotAdd("the resource names no authorization server; name it: --issuer URL")
    if len(servers) > 1:
        words = f"the resource names several authorization servers; choose one: --issuer URL: {_listed(servers)}"
        raise CannotAdd(words)
    return servers[0]


def _listed(servers: Sequence[str]) -> str:
    return ", ".join(map(reason, servers)) or "it names none"


def _pairs(table: Mapping[str, Any]) -> list[str]:
    """A line for each value, and for each value of a table in it."""
    lines = []
    for key, value in table.items():
        inner = {f"{key}.{_key(each)}": one for each, one in value.items()} if isinstance(value, dict) else {key: value}
        lines += [f"{name} = {_toml(one)}" for name, one in inner.items() if one not in (None, [])]
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: object) -> str:
    """As TOML writes it; a name in quotes is a key as well."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
