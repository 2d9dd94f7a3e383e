# The process of brokerd-proxy: joins listeners, clients, tokens and upstreams, reads FILE.toml again after SIGHUP, and
# tells the service manager how it goes.
from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import trio
from brokerd_client import BrokerError
from brokerd_client.on_trio import Broker

from brokerd.config.metadata import EndpointSettings
from brokerd.config.proxies import ProxySettings
from brokerd.config.proxy_places import ProxyPlace
from brokerd.core.events import Event
from brokerd.core.validation import ConfigError
from brokerd.edge.http.wire import Broken
from brokerd.edge.peer.peer import uid_of
from brokerd.edge.peer.tcp_owner import UnknownOwner, uid_of_client
from brokerd.edge.systemd.notify import beats
from brokerd.edge.systemd.socket import CannotListen
from brokerd.proxy.clients import ProxyClient, refuse
from brokerd.proxy.crowd import Crowd
from brokerd.proxy.endpoints import RunningEndpoint
from brokerd.proxy.listeners import Listeners, place_of
from brokerd.proxy.report import Reporter
from brokerd.proxy.running import Running, RunningProxy
from brokerd.proxy.short_way import ShortWays
from brokerd.proxy.streams import ClientGone
from brokerd.proxy.tokens import LiveTokens
from brokerd.proxy.turns import Turn, Turns
from brokerd.proxy.upstreams import UpstreamConnections
from brokerd.proxy.usage import Usage

ACCEPTED = 16  # connections that are accepted before others have their turn
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
NO_DESCRIPTORS = 0.1  # seconds to wait for a descriptor
SWEEP = 5.0  # seconds between looks for connections to upstreams that have waited for too long
TURNED_AWAY = 64  # connections that are told at the same time why they get nothing
STOP_WITHIN = 20.0  # seconds that requests under way have at SIGTERM

Settings = Sequence[ProxySettings | EndpointSettings]
Load = Callable[[], Settings]


class ProxyService:
    """`load` reads FILE.toml and raises ConfigError; `in_words` says such an error; `notify` tells systemd.

    Many attributes: it joins the parts of the process."""

    def __init__(
        self, load: Load, say: Callable[..., None], notify: Callable[..., None], in_words: Callable[[ConfigError], str]
    ) -> None:
        self._load = load
        self._say = say
        self._notify = notify
        self._in_words = in_words
        self._settings: Settings = ()
        self._proxies: dict[ProxyPlace, Running[Any]] = {}
        self._clients: set[ProxyClient] = set()
        self._ways = ShortWays()
        self._left = trio.lowlevel.ParkingLot()  # waits for clients to leave
        self._usage = Usage()
        self._turns = Turns()
        self._listeners = Listeners({})
        self._crowd = Crowd(0)
        self._turned_away = 0  # connections that are just told why they get nothing

    def open(self, environ: MutableMapping[str, str], descriptors: int) -> None:
        """Read FILE.toml and listen. Raises ConfigError, CannotListen."""
        self._settings = self._load()
        self._crowd = Crowd(descriptors)
        self._listeners = Listeners(environ)
        self._listeners.open(each.place for each in self._settings)
        self._listeners.drop_others()

    async def run(self, broker: Broker) -> None:
        """After `open`, until SIGTERM or SIGINT."""
        settings: Settings | None = self._settings
        event = Event.READY
        tokens, reporter = LiveTokens(broker, self._say_away), Reporter(broker, self._usage)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as serving:
                serving.start_soon(self._ways.run)
                async with trio.open_nursery() as beside:
                    for each in (self._sweep, self._beat, reporter.run):
                        beside.start_soon(each)
                    while settings is not None:
                        async with trio.open_nursery() as following:
                            self._apply(settings, tokens, serving, beside)
                            tokens.follow({each.source for each in settings}, following)
                            self._notify("READY=1", f"STATUS={self.line()}")
                            self._say(event, proxies=len(settings))
                            settings = await self._next(signals)
                            following.cancel_scope.cancel()
                        event = Event.RELOADED
                    beside.cancel_scope.cancel()
                self._notify("STOPPING=1")
                await self._drain(serving)
        await reporter.last()

    async def _next(self, signals: Any) -> Settings | None:
        """The proxies of the next reload; None: stop."""
        async for number in signals:
            if number != signal.SIGHUP:
                break
            try:
                found = await trio.to_thread.run_sync(self._load)
                self._listeners.open(each.place for each in found)
            except ConfigError as error:
                for mistake in (error, *error.others):
                    self._say(Event.NOT_RELOADED, reason=self._in_words(mistake))
                continue
            except CannotListen as error:
                self._say(Event.NOT_RELOADED, reason=str(error))
                continue
            return found
        return None

    def _apply(self, settings: Settings, tokens: LiveTokens, serving: trio.Nursery, beside: trio.Nursery) -> None:
        """Connections stay, also those of a proxy that has changed. Those of one that has gone end after their present
        request."""
        self._crowd.forget_strangers()
        before, self._proxies = self._proxies, {}
        for each in settings:
            old = before.pop(each.place, None)
            if old is not None and old.settings == each:
                self._proxies[each.place] = old
                continue
            if isinstance(each, ProxySettings):
                running: Running[Any] = RunningProxy(each, tokens, self._usage, UpstreamConnections(each))
            else:
                running = RunningEndpoint(each, tokens, self._usage)
            self._proxies[each.place] = running
            if old is None:
                beside.start_soon(self._accept, each.place, self._listeners[each.place], serving)
            else:
                old.close()
        for place, gone in before.items():
            gone.runs = False
            gone.close()
            trio.lowlevel.notify_closing(self._listeners[place])  # it ends `_accept`
            self._listeners.close(place)
        for client in self._clients:
            client.proxy = self._proxies.get(client.proxy.settings.place, client.proxy)
            if not client.proxy.runs:
                client.end_if_idle()
        while self._listeners.connections:
            sock = self._listeners.connections.pop()
            self._begin(place_of(sock), sock, serving)

    async def _accept(self, place: ProxyPlace, listener: socket.socket, serving: trio.Nursery) -> None:
        while place in self._proxies:
            try:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(ACCEPTED):
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    self._begin(place, sock, serving)
            except BlockingIOError:
                pass
            except trio.ClosedResourceError:  # a reload removed it
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    await trio.sleep(NO_DESCRIPTORS)

    def _begin(self, place: ProxyPlace, sock: socket.socket, serving: trio.Nursery) -> None:
        """Whoever gets nothing here costs no task: a crowd of them must not keep the others out."""
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            if (proxy := self._proxies.get(place)) is None:
                return
            try:
                uid = uid_of(sock) if sock.family == socket.AF_UNIX else uid_of_client(sock)
            except (UnknownOwner, OSError) as why:
                undo.pop_all()
                self._turn_away(sock, 403, "denied", f"this proxy could not see who connects: {why}", serving)
                return
            if objection := self._crowd.enter(uid, place, trio.current_time()):
                undo.pop_all()
                self._turn_away(sock, 503, "limit", objection, serving)
                return
            undo.pop_all()
            client = ProxyClient(sock, proxy, uid, self._ways, Turn(self._turns, uid))
            self._clients.add(client)
            serving.start_soon(self._serve, client)

    def _turn_away(self, sock: socket.socket, status: int, code: str, words: str, serving: trio.Nursery) -> None:
        """Say why there is no service. Of a crowd that is turned away, only some are waited for until they have read
        it."""
        if self._turned_away >= TURNED_AWAY:
            sock.close()
            return
        self._turned_away += 1

        async def say() -> None:
            try:
                with contextlib.suppress(ClientGone):
                    await refuse(sock, status, code, words)
            finally:
                self._turned_away -= 1
                sock.close()

        serving.start_soon(say)

    async def _serve(self, client: ProxyClient) -> None:
        try:
            await client.attest()
            await client.serve()
        except (Broken, ClientGone, OSError, trio.BusyResourceError):
            pass  # the client has gone, or its answer cannot be ended properly
        except Exception:
            self._say(Event.BUG, ended="connection", exc_info=True)
        finally:
            if client.is_stranger and not client.proxy.needs:
                self._crowd.refused(client.uid, client.proxy.settings.place, trio.current_time())
            self._crowd.leave(client.uid)
            self._leave(client)

    def _leave(self, client: ProxyClient) -> None:
        if client.is_idle:
            self._listeners.leave(client.sock)
        client.close()
        self._clients.discard(client)
        self._left.unpark_all()

    async def _drain(self, serving: trio.Nursery) -> None:
        """Requests under way end. Idle connections are kept by systemd for the next process, or closed."""
        self._listeners.begin_end()
        for proxy in self._proxies.values():
            proxy.runs = False
        for client in self._clients:
            client.end_if_idle()
        with trio.move_on_after(STOP_WITHIN):
            while self._clients:
                await self._left.park()
        serving.cancel_scope.cancel()
        for proxy in self._proxies.values():
            proxy.close()
        self._listeners.end()

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP)
            for proxy in self._proxies.values():
                proxy.sweep()

    # -- what people and the service manager are told

    def _say_away(self, why: BrokerError | None) -> None:
        if why is None:
            self._say(Event.BROKERD_BACK)
        else:
            self._say(Event.BROKERD_AWAY, reason=why.message)
        self._notify(f"STATUS={self.line(why)}")

    def line(self, away: BrokerError | None = None) -> str:
        """How it goes, in one line without a secret."""
        number = len(self._proxies)
        line = f"{number} prox{'y' if number == 1 else 'ies'}"
        return f"{line}; brokerd is away: {away.message}" if away else line

    async def _beat(self) -> None:
        """WATCHDOG=1 as long as the event loop runs."""
        while (pause := beats(os.environ)) is not None:
            self._notify("WATCHDOG=1")
            await trio.sleep(pause)
