# The socket and who is behind it: who may connect, whether the daemon answers, and what it says of itself.
from __future__ import annotations

import errno
import os
import socket as sockets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brokerd_client import Broker, BrokerError
from brokerd_client.address import CALLERS
from brokerd_client.session import WAIT

from brokerd import __version__
from brokerd.doctor.finding import Finding, ok, problem, told, warning
from brokerd.doctor.scene import Scene
from brokerd.edge import place
from brokerd.edge.accounts import group_name, members, numbered, ourselves
from brokerd.edge.clock import lasting

NAME, BARRED, BEHIND, GRANTS = "socket", "access", "daemon", "grants"
GRANTS_SHOWN = 20
SETTING = "--socket PATH, or [daemon] socket"
OWN_GROUP = "socket_group in [daemon], or SocketGroup= in brokerd.socket"
ANSWERS_WITHIN = 5.0  # seconds; it waits for no provider before it says how it is
SHOWN = 5  # members of a group


def socket(scene: Scene) -> Iterator[Finding]:
    path = scene.socket
    try:
        found = path.stat()
    except FileNotFoundError:
        for fault in place.faults_of_socket(path.parent, scene.account.uid):  # for which brokerd would not start
            yield told(NAME, fault, place.ELSEWHERE["the socket"])
        yield problem(NAME, f"there is no socket at {path}", scene.start)
        return
    except PermissionError:
        words = f"{ourselves().name} cannot get to {path}: {path.parent} or a directory above it is closed"
        yield problem(BARRED, words, "look at it as root; a socket for others needs another place: [daemon] socket")
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield problem(NAME, f"{path} is no socket", f"name the socket that brokerd has: {SETTING}")
        return
    for fault in place.faults_of_socket(path.parent, scene.account.uid):
        yield told(NAME, fault, place.ELSEWHERE["the socket"])
    refused = _refused(path, knock=not scene.would_start)
    if refused == errno.EACCES:
        us = ourselves().name
        remedy = way_in(group_name(found.st_gid), us, scene)
        yield problem(BARRED, f"{path}: {us} may not connect; {_who(found)} may", remedy)
    elif refused:
        yield problem(NAME, f"nobody listens at {path}: {os.strerror(refused)}", scene.start)
    else:
        yield ok(NAME, f"{path}: {_who(found)} may connect")
        if not scene.would_start:
            yield from _behind(scene)


def way_in(group: str, user: str, scene: Scene) -> str:
    """Nobody is told to join a group that may do more than connect."""
    chosen = scene.configuration.daemon.socket_group if scene.configuration else None
    if group not in (CALLERS, chosen):
        return f"let a group of callers connect: {OWN_GROUP}"
    return f"usermod -aG {group} {user}, as root; then log in again"


def _behind(scene: Scene) -> Iterator[Finding]:
    try:
        with Broker(scene.socket, timeout=ANSWERS_WITHIN - WAIT) as broker:
            version = broker.call("hello")["server"]
            said = broker.call("status")
        found = list(of_daemon(version, said["daemon"], scene))
        grants = list(of_grants(said["grants"], time.time()))
    except BrokerError as error:
        yield problem(BEHIND, f"it does not answer: {error.message}", scene.journal)
        return
    except (KeyError, TypeError, AttributeError):
        yield problem(BEHIND, "it answers, but not as brokerd does", f"ss -xlp src {scene.socket}")
        return
    yield from found or [ok(BEHIND, f"brokerd {version} answers")]
    yield from grants


def of_daemon(version: str, daemon: dict[str, Any], scene: Scene) -> Iterator[Finding]:
    """Pure: what it says of itself."""
    if version != __version__:
        words = f"brokerd {version} runs, and this is {__version__}"
        yield warning(BEHIND, words, scene.restart)
    if daemon["locked"]:
        yield problem(BEHIND, "the keys are locked, and nothing is served", "brokerctl unlock")
    if daemon["store"]:
        yield told(BEHIND, daemon["store"].replace(" until: ", "; "), f"df -h {scene.state}; dmesg | tail")
    if audit := daemon.get("audit"):  # an older brokerd has none
        yield told(BEHIND, f"the audit log cannot be written: {audit}", f"df -h {scene.state}; dmesg | tail")


def of_grants(grants: list[dict[str, Any]], now: float) -> Iterator[Finding]:
    """Pure: those that fail, since when, and what to do. A grant that was revoked is as somebody wanted it."""
    troubled = [each for each in grants if each["last_error"] or each["state"] in ("needs_login", "misconfigured")]
    troubled = [each for each in troubled if each["state"] != "revoked"]
    for each in troubled[:GRANTS_SHOWN]:
        yield _of_grant(each, now)
    if (more := len(troubled) - GRANTS_SHOWN) > 0:
        yield warning(GRANTS, f"{more} more fail", "brokerctl status")
    if grants and not troubled:
        yield ok(
            GRANTS,
            f"none of the {len(grants)} that you may see fails"
            if len(grants) > 1
            else f"{grants[0]['name']} does not fail",
        )


def _of_grant(grant: dict[str, Any], now: float) -> Finding:
    name, since, error = grant["name"], grant.get("failing_since"), grant["last_error"] or "it has no token"
    when = "" if since is None else f" {lasting(since, now)}"
    match grant["state"]:
        case "needs_login":
            words = f"{name} needs a login{when}: {error}"
            return problem(GRANTS, words, grant.get("remedy") or f"brokerctl login {name}")
        case "misconfigured":
            again = f"change that, then: brokerctl refresh {name}"
            return told(GRANTS, f"{name} is misconfigured{when}: {error}", again)
    return warning(GRANTS, f"{name} fails{when}: {error}", f"it is tried again by itself; brokerctl status {name}")


def _refused(path: Path, *, knock: bool) -> int:
    """The errno of a connection there; 0: somebody takes it. Without `knock`, what its mode says."""
    if not knock:
        return 0 if os.access(path, os.W_OK) else errno.EACCES
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.setblocking(False)
        found = probe.connect_ex(str(path))
    return 0 if found == errno.EAGAIN else found  # its queue is full: somebody listens


def _who(found: os.stat_result) -> str:
    """Who may connect, by the socket's mode; the rules say what they get."""
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    who = ["root"]
    if found.st_mode & stat.S_IWUSR and found.st_uid:
        who.append(numbered(found.st_uid).name)
    if found.st_mode & stat.S_IWGRP:
        inside = members(found.st_gid)
        shown = f" ({', '.join(inside[:SHOWN])}{', …' if len(inside) > SHOWN else ''})" if inside else ""
        who.append(f"the group {group_name(found.st_gid)}{shown}")
    return " and ".join((", ".join(who[:-1]), who[-1])) if len(who) > 1 else who[0]
