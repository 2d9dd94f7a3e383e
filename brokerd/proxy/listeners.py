# Where clients connect: the listening sockets of the proxies, taken over from the process before where systemd kept
# them.
from __future__ import annotations

import socket
import stat
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path

from brokerd.config.proxy_places import ProxyPlace
from brokerd.edge.peer.peer import demand_credentials
from brokerd.edge.systemd import kept_sockets
from brokerd.edge.systemd import socket as sockets


class Listeners:
    """`environ`: the process's environment. `connections`: those that the process before left."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        listeners, self.connections = kept_sockets.from_systemd(environ)
        self._found = {place_of(sock): sock for sock in listeners}
        self._keeps = kept_sockets.available(environ)
        self._ends = False
        self._open: dict[ProxyPlace, socket.socket] = {}

    def __getitem__(self, place: ProxyPlace) -> socket.socket:
        return self._open[place]

    def open(self, places: Iterable[ProxyPlace]) -> None:
        """All of them or none. Raises CannotListen."""
        new = dict[ProxyPlace, socket.socket]()
        try:
            for place in places:
                if place not in self._open:
                    new[place] = self._inherited(place) or _listen(place)
        except sockets.CannotListen:
            for place, listener in new.items():
                _close(place, listener)
            raise
        self._open |= new
        if new:
            self._keep_open_ones()

    def close(self, place: ProxyPlace) -> None:
        """For good."""
        _close(place, self._open.pop(place))
        self._keep_open_ones()

    def drop_others(self) -> None:
        """What the process before left, and nobody needs now."""
        for place, listener in self._found.items():
            _close(place, listener)
        self._found.clear()

    def _keep_open_ones(self) -> None:
        if self._keeps:
            kept_sockets.keep_only(kept_sockets.LISTENER, list(self._open.values()))

    def begin_end(self) -> None:
        """From now on, connections that are left idle are for the next process."""
        self._ends = True

    def leave(self, connection: socket.socket) -> None:
        """This process serves an idle connection no longer."""
        if self._ends and self._keeps:
            kept_sockets.keep(kept_sockets.CONNECTION, [connection])

    def end(self) -> None:
        """The process ends. What systemd keeps goes on taking connections for the next one."""
        for place, listener in self._open.items():
            if self._keeps:
                listener.close()
            else:
                _close(place, listener)
        if self._keeps:
            kept_sockets.until_taken()

    def _inherited(self, place: ProxyPlace) -> socket.socket | None:
        listener = self._found.pop(place, None)
        if listener is not None and place.path and not _is_socket(place.path):  # nobody can reach it any more
            listener.close()
            return None
        return listener


def place_of(sock: socket.socket) -> ProxyPlace:
    """Where a listener listens, or where a connection was accepted."""
    name = sock.getsockname()
    return ProxyPlace(path=name) if sock.family == socket.AF_UNIX else ProxyPlace(host=name[0], port=name[1])


def _listen(place: ProxyPlace) -> socket.socket:
    """Raises CannotListen."""
    if not place.path:
        return sockets.on_tcp(place.host, place.port, "listen", sockets.BACKLOG)
    listener = sockets.at(Path(place.path), 0o666, None, "socket")  # `caller` decides who may use it
    demand_credentials(listener)
    return listener


def _close(place: ProxyPlace, listener: socket.socket) -> None:
    listener.close()
    if place.path:
        with suppress(OSError):
            Path(place.path).unlink()


def _is_socket(path: str) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(Path(path).lstat().st_mode)
    return False
