# The page command: shows the page of brokerd in the person's browser, with the rights of that person, until Ctrl-C or
# until nobody has looked at it for a while.
from __future__ import annotations

import os
import select
import sys
from argparse import Namespace
from contextlib import closing
from http.client import HTTPException
from time import monotonic

from brokerd_client import Broker

from brokerd.ctl.browser import pages
from brokerd.ctl.browser.handoff import Handoff, has_desktop
from brokerd.ctl.browser.page_server import PageServer
from brokerd.ctl.terminal import Failed, complain, plain, write

IDLE = 30 * 60.0  # seconds without a browser that looks
LOOK = 5.0  # seconds between two looks whether it is idle
OFF = (
    "this brokerd has no HTTP socket, which the page needs. To switch it on: systemctl enable brokerd-http.socket && "
    'systemctl restart brokerd, as root; without systemd: socket = "…" in [http] of the configuration, and start '
    "brokerd again"
)


def page(broker: Broker, arguments: Namespace) -> int:
    """Serve the page to one browser."""
    path = broker.call("hello").get("http_socket")
    if path is None:
        raise Failed(OFF)
    try:
        server = PageServer(path, arguments.port)
    except OSError as error:
        raise Failed(f"cannot listen at port {arguments.port or 0}: {error.strerror}; try another --port") from None
    with closing(server):
        _try(server)
        server.serve()
        _explain(server)
        handoff = None if arguments.no_browser else _open(server)
        try:
            return _until_over(server, handoff)
        finally:
            if handoff is not None:
                handoff.close()


def _try(server: PageServer) -> None:
    """Whether brokerd lets us in, said before a browser opens. Raises Failed."""
    try:
        with closing(server.ask("/page/icon.svg")) as answer:
            if answer.status != 200:
                words = "brokerd at {} has no page; it may be an older version: brokerctl version"
                raise Failed(words.format(plain(server.socket_path)))
    except (OSError, HTTPException) as error:
        why = getattr(error, "strerror", None) or "it is not HTTP"
        words = f"cannot use the HTTP socket {plain(server.socket_path)}: {why}; its mode and group decide who may"
        raise Failed(f"{words}: see brokerd-http.socket, or [http] and socket_mode in the configuration") from None


def _explain(server: PageServer) -> None:
    write(f"The page is at this address. It works once, in one browser:\n\n    {server.start_url}\n")
    if "SSH_CONNECTION" in os.environ:
        write(f"If the browser is on another machine, first run there:  ssh -L {server.port}:{server.host} THIS-HOST")
    write(f"It ends with Ctrl-C, or when nobody has looked at it for {IDLE / 60:.0f} min.")


def _open(server: PageServer) -> Handoff | None:
    """Open the browser, if there is one. Its command line has the name of a file, not the URL, which is a secret."""
    if not (has_desktop() and sys.stdout is not None and sys.stdout.isatty()):
        return None
    try:
        handoff = Handoff(pages.onward("The page of brokerd", server.start_url))
    except OSError as error:
        complain(f"cannot write a page for the browser ({error.strerror}); open the address yourself")
        return None
    if not handoff.open():
        complain("cannot start a browser; open the address yourself")
    return handoff


def _until_over(server: PageServer, handoff: Handoff | None) -> int:
    while True:
        ready, _, _ = select.select([server.woken], [], [], LOOK)
        if server.alarmed:
            words = "a second browser opened the one-time address, so somebody else may know it; the page was closed"
            raise Failed(f"{words}. To open it again: brokerctl page")
        if ready:
            os.read(server.woken, 1)
            if handoff is not None:
                handoff.close()  # the address in the file has been used
        if monotonic() - server.used_at > IDLE:
            write(f"nobody has looked at the page for {IDLE / 60:.0f} min; it was closed")
            return 0
