# A metadata endpoint at work: who may ask, and one request and its answer. core/metadata decides what is answered.
from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import parse_qsl, unquote

import trio
from brokerd_client import BrokerError

from brokerd.config.metadata import EndpointSettings
from brokerd.core.access.policy import Caller
from brokerd.core.http.forwarding import NotForwarded, check_browser
from brokerd.core.http.heads import RequestHead
from brokerd.core.metadata.answers import Asked, Given, MetadataAnswer, NotGiven, refuse_forwarded
from brokerd.core.metadata.aws import Container, Instance
from brokerd.core.metadata.azure import Azure
from brokerd.core.metadata.google import Google
from brokerd.core.secret import SecretSource
from brokerd.edge.files.secret_sources import SecretUnreadable, read_secret
from brokerd.proxy import answers
from brokerd.proxy.exchange import Course
from brokerd.proxy.running import Running
from brokerd.proxy.streams import Incoming

Kind = Container | Instance | Google | Azure


@dataclass(eq=False)
class RunningEndpoint(Running[EndpointSettings]):
    """`_key` signs the sessions of an instance."""

    kind = "metadata"
    _key: bytes = field(default_factory=partial(secrets.token_bytes, 32), repr=False)

    def check(self, head: RequestHead) -> bytes:
        check_browser(head, self.hosts)
        if not head.target.startswith(b"/") or head.has_body:
            raise NotForwarded(400, "bad_request", "expected a path, and no body")
        return head.target.partition(b"?")[0]

    def exchange(self, client: Incoming, head: RequestHead, caller: Caller) -> MetadataExchange:
        return MetadataExchange(self, client, head, caller.uid)

    async def answers(self) -> Kind:
        """Raises SecretUnreadable."""
        settings, values, word = self.settings, self.settings.values, None
        if settings.word_file is not None:
            source = SecretSource(file=str(settings.word_file))
            word = (await trio.to_thread.run_sync(read_secret, source, abandon_on_cancel=True)).reveal()
        grant = settings.source.grant
        match settings.kind:
            case "aws-container":
                return Container(grant, word)
            case "aws-imds":
                return Instance(grant, values["role"] or settings.name, values["region"], self._key)
            case "gce":
                return Google(grant, values["email"], values["project"], tuple(values["scopes"] or ()))
            case _:
                return Azure(grant, values["resource"], word)


class MetadataExchange:
    """Built for one request, and run once. `done` says how far it came."""

    def __init__(self, endpoint: RunningEndpoint, client: Incoming, head: RequestHead, uid: int) -> None:
        self.done = Course(keep=head.keeps_alive)
        self._endpoint = endpoint
        self._client = client
        self._head = head
        self._uid = uid

    async def run(self, _room: memoryview) -> None:
        """Raises ClientGone."""
        method, keep = self._head.method, self.done.keep
        try:
            found = await self._answer()
            self.done.status, data = found.status, answers.whole(found, keep=keep, method=method)
        except NotGiven as refused:
            self.done.status, words = refused.status, str(refused)
            data = answers.error(refused.status, "not_given", words, keep=keep, method=method, headers=refused.headers)
        except SecretUnreadable as error:
            self.done.status = 500
            data = answers.error(self.done.status, "misconfigured", str(error), keep=keep, method=method)
        except BrokerError as error:
            self.done.status = 503
            data = answers.of_broker(error, keep=keep, method=method)
        await self._client.wire.send(data)

    async def _answer(self) -> MetadataAnswer:
        kind, now, asked = await self._endpoint.answers(), time.time(), asked_by(self._head)
        refuse_forwarded(asked)
        found = kind.check(asked, self._uid, now) if isinstance(kind, Instance) else kind.check(asked)
        if found is not None:
            return found
        source, tokens = self._endpoint.settings.source, self._endpoint.tokens
        token = tokens.current(source) or await tokens.wait_for(source)
        return kind.answer(asked, Given(token.value, token.expires_at, token.fields), time.time())


def asked_by(head: RequestHead) -> Asked:
    """Of a header or key that comes twice, the last one counts."""
    path, _, query = head.target.decode("ascii").partition("?")
    headers: Mapping[str, str] = {lower.decode(): value.decode("latin-1") for lower, _, value in head.headers}
    return Asked(head.method.decode("ascii"), unquote(path), dict(parse_qsl(query)), headers)
