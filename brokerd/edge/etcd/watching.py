# A watch: a request whose answer does not end, on a connection of its own to the server that is asked for all else. It
# waits without a deadline; the kernel, and every request that fails at that server, say that it is lost.
from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import h11
import trio

from brokerd.core.fleet import gateway_json
from brokerd.core.fleet.etcd import Changes, EtcdAway
from brokerd.core.fleet.gateway_errors import EtcdFailure, FailureKind, refused_answer
from brokerd.core.fleet.gateway_json import BadGatewayAnswer, WatchLines
from brokerd.core.ports import TransportError
from brokerd.core.secret import Secret
from brokerd.edge.etcd.asking import ERRORS, ONE_TRY, Asking, headers_with, without, words_of
from brokerd.edge.etcd.lines import Lines, StreamBroken
from brokerd.edge.etcd.servers import Servers
from brokerd.edge.http.answer import AnswerLimits
from brokerd.edge.http.client import USER_AGENT
from brokerd.edge.http.connection import Attempt, Origin, split_url

PROBE = 5  # seconds of silence after which the kernel asks whether the server is there


class EtcdWatch(AsyncIterator[Changes]):
    """The changes. It raises an EtcdError when it is lost, and the same one ever after."""

    def __init__(self, server: str, servers: Servers, lines: Lines) -> None:
        self.server = server
        self._servers = servers
        self._lines = lines
        self._reader = WatchLines()
        self._found: deque[Changes] = deque()
        self._lost: EtcdFailure | None = None

    async def begin(
        self, message: h11.Request, body: bytes, attempt: Attempt, limits: AnswerLimits
    ) -> EtcdFailure | None:
        """Until etcd says that it watches."""
        try:
            status = await self._lines.begin(message, body, attempt, limits)
            if status != 200:
                return refused_answer(status, await self._lines.next())
            while not self._reader.created:
                news = self._reader.read(await self._lines.next())
                if isinstance(news, EtcdFailure):
                    return news
                self._found.extend(news)
        except (TransportError, StreamBroken, BadGatewayAnswer) as error:
            return EtcdFailure(FailureKind.ELSEWHERE, without(self.server, error))
        return None

    async def __anext__(self) -> Changes:
        while self._lost is None:
            if self._found:
                return self._found.popleft()
            try:
                news = self._reader.read(await self._lines.next())
            except (StreamBroken, BadGatewayAnswer) as error:
                news = EtcdFailure(FailureKind.UNCLEAR, f"the watch is lost: {error}")
            if isinstance(news, EtcdFailure):
                self._end(news)
            else:
                self._found.extend(news)
        raise ERRORS.get(self._lost.kind, EtcdAway)(words_of(self.server, self._lost))

    def hear(self, words: str) -> None:
        """A request failed at the server."""
        self._lost = self._lost or EtcdFailure(
            FailureKind.ELSEWHERE, f"the watch was given up after a failure ({words})"
        )
        self._lines.close()

    def close(self) -> None:
        self._lines.close()

    def _end(self, failure: EtcdFailure) -> None:
        if self._lost is not None:
            return
        if failure.kind is FailureKind.TOKEN:  # a new watch has a new one
            failure = EtcdFailure(FailureKind.ELSEWHERE, failure.words)
        self._lost = failure
        if failure.kind not in ERRORS:
            self._servers.failed(self.server, failure.words)


@asynccontextmanager
async def watching(asking: Asking, prefix: bytes, since: int) -> AsyncGenerator[AsyncIterator[Changes], None]:
    """EtcdWatch until the block is left. Raises EtcdError."""
    body = gateway_json.watch_request(prefix, since)

    async def attempt(server: str, token: Secret | None) -> EtcdWatch | EtcdFailure:
        return await _opened(asking, server, body, token)

    watch = await asking.tried(attempt)
    with asking.servers.watched(watch.server, watch.hear):
        try:
            yield watch
        finally:
            watch.close()


async def _opened(asking: Asking, server: str, body: bytes, token: Secret | None) -> EtcdWatch | EtcdFailure:
    failures = asking.servers.failures
    try:
        origin, _ = split_url(server)
    except TransportError as error:
        return EtcdFailure(FailureKind.ELSEWHERE, str(error))
    attempt = Attempt(origin.endpoint)
    with trio.move_on_after(ONE_TRY):
        try:
            connection = await asking.opener.open(origin, attempt)
        except TransportError as error:
            return EtcdFailure(FailureKind.ELSEWHERE, without(server, error))
        connection.tcp.probe(PROBE)
        watch = EtcdWatch(server, asking.servers, Lines(connection))
        failure: EtcdFailure | None = EtcdFailure(FailureKind.ELSEWHERE, "the watch was given up")
        try:
            failure = await watch.begin(_message(origin, body, token), body, attempt, asking.limits)
            if failure is None and asking.servers.failures != failures:
                failure = EtcdFailure(FailureKind.ELSEWHERE, "another request failed there")
        finally:
            if failure is not None:
                watch.close()
        if failure is None:
            return watch
        # etcd says of a watch whose token counts no longer that its user has no permission.
        is_refused = failure.kind is FailureKind.REFUSED and token is not None
        return EtcdFailure(FailureKind.TOKEN, failure.words) if is_refused else failure
    return EtcdFailure(FailureKind.ELSEWHERE, f"timed out after {ONE_TRY:g} s {attempt.doing}")


def _message(origin: Origin, body: bytes, token: Secret | None) -> h11.Request:
    fields = [("Host", origin.host_header), ("EtcdUser-Agent", USER_AGENT), ("Content-Length", str(len(body)))]
    return h11.Request(method="POST", target="/v3/watch", headers=[*fields, *headers_with(token)])
