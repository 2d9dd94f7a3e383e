# Checks the socket and the daemon: who may connect, whether the daemon answers, and what it says about itself.
from __future__ import annotations

import errno
import os
import socket as sockets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from brokerd_client import Broker, BrokerError, Denied
from brokerd_client.address import CALLERS
from brokerd_client.request import WAIT

from brokerd import __version__
from brokerd.config.settings import CLOCK_DIFFERENCE
from brokerd.core.exchange.outcomes import Cause
from brokerd.core.fleet.condition import troubles
from brokerd.core.grant.advice import BY_CAUSE, GOES_ON, remedy, split
from brokerd.core.grant.condition import LOCKED, Tone
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, ok, problem, problem_from, warning
from brokerd.edge.files import ownership
from brokerd.edge.peer.accounts import account_of, group_name, members, ourselves
from brokerd.edge.system.clock import lasting

ADOPT = "brokerctl adopt"  # what the daemon says at the end of NOT_ADOPTED (server/methods/status.py)

NAME, BARRED, BEHIND, GRANTS = "socket", "access", "daemon", "grants"
GRANTS_SHOWN = 20
LOOK_HERE = "see what these lines say about its provider"  # instead of the advice to run doctor
SETTING = "--socket PATH, or [daemon] socket"
OWN_GROUP = "socket_group in [daemon], or SocketGroup= in brokerd.socket"
ANSWERS_WITHIN = 5.0  # seconds; it waits for no provider before it says how it is
SHOWN = 5  # members of a group


def socket(facts: Facts) -> Iterator[Finding]:
    path = facts.socket
    try:
        found = path.stat()
    except FileNotFoundError:
        for fault in ownership.faults_of_socket(path.parent, facts.account.uid):  # for which brokerd would not start
            yield problem_from(NAME, fault, ownership.ELSEWHERE["the socket"])
        yield problem(NAME, f"there is no socket at {path}", facts.start)
        return
    except PermissionError:
        words = f"{ourselves().name} may not enter {path.parent} or a directory above it, so {path} cannot be reached"
        remedy = "run this as root; if others have to connect, set [daemon] socket to another place"
        yield problem(BARRED, words, remedy)
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield problem(NAME, f"{path} is not a socket", f"name brokerd's socket: {SETTING}")
        return
    for fault in ownership.faults_of_socket(path.parent, facts.account.uid):
        yield problem_from(NAME, fault, ownership.ELSEWHERE["the socket"])
    refused = refused_with(path, knock=not facts.would_start)
    if refused == errno.EACCES:
        us = ourselves().name
        remedy = how_to_connect(group_name(found.st_gid), us, facts)
        yield problem(BARRED, f"{path}: {us} may not connect; {who_may_connect(found)} may", remedy)
    elif refused:
        yield problem(NAME, f"nothing listens at {path}: {os.strerror(refused)}", facts.start)
    else:
        yield ok(NAME, f"{path}: {who_may_connect(found)} may connect")
        if not facts.would_start:
            yield from _behind(facts)


def how_to_connect(group: str, user: str, facts: Facts) -> str:
    """Never advise to join a group that may do more than connect."""
    chosen = facts.configuration.daemon.socket_group if facts.configuration else None
    if group not in (CALLERS, chosen):
        return f"give the socket to a group of callers: {OWN_GROUP}"
    return f"usermod -aG {group} {user}, as root; then log in again"


def _behind(facts: Facts) -> Iterator[Finding]:
    try:
        with Broker(facts.socket, timeout=ANSWERS_WITHIN - WAIT) as broker:
            version = broker.call("hello")["server"]
            said = broker.call("status")
            members = [] if said["daemon"].get("fleet") is None else _members(broker)
        found = [*of_daemon(version, said["daemon"], facts), *of_members(members, facts)]
        grants = list(of_grants(said["grants"], time.time()))
    except BrokerError as error:
        yield problem(BEHIND, f"brokerd does not answer: {error.message}", facts.journal)
        return
    except (KeyError, TypeError, AttributeError):
        remedy = f"see which process it is: ss -xlp src {facts.socket}"
        yield problem(BEHIND, "something answers that is not brokerd", remedy)
        return
    yield from found or [ok(BEHIND, f"brokerd {version} answers")]
    yield from grants


def _members(broker: Broker) -> list[dict[str, Any]]:
    """None if the user may not see them."""
    try:
        return list(broker.call("fleet")["members"])
    except Denied:
        return []


def of_members(members: Iterable[dict[str, Any]], facts: Facts) -> Iterator[Finding]:
    """The clocks of the other hosts, as far as they are known. Pure."""
    store = facts.configuration.store if facts.configuration else None
    permitted = CLOCK_DIFFERENCE if store is None else store.clock_difference
    for each in members:
        if each["clock"] is not None and abs(each["clock"]) > permitted:
            side = "ahead of" if each["clock"] > 0 else "behind"
            words = f"the clock of {each['host']} is {abs(each['clock']):.0f} s {side} this machine's"
            remedy = "timedatectl status; date -u, on both"
            yield problem("clock", f"{words}, more than clock_difference of [store] permits", remedy)


def of_daemon(version: str, daemon: dict[str, Any], facts: Facts) -> Iterator[Finding]:
    """What the daemon says about itself. Pure."""
    if version != __version__:
        words = f"brokerd {version} is running, and this command belongs to {__version__}"
        yield warning(BEHIND, words, facts.restart)
    if daemon["locked"]:
        yield problem(BEHIND, "brokerd is locked and serves no token", "brokerctl unlock")
    before, adopt, trouble = (daemon["store"] or "").rpartition(ADOPT)
    if adopt:
        yield problem(BEHIND, before.rstrip(":; "), ADOPT)
    if trouble := trouble.lstrip("; "):
        yield problem_from(BEHIND, trouble, f"df -h {facts.state}; dmesg | tail")
    if (fleet := daemon.get("fleet")) is not None:
        for each in troubles(fleet, time.time()):
            when = "" if each.since is None else lasting(each.since, time.time())
            words = f"fleet {fleet['fleet']}: {each.sentence(when)}"
            level = problem if each.tone is Tone.BAD else warning
            yield level(BEHIND, words, each.remedy or "brokerctl fleet")
    if audit := daemon.get("audit"):  # an older brokerd has none
        yield problem_from(BEHIND, f"the audit log cannot be written: {audit}", f"df -h {facts.state}; dmesg | tail")


def of_grants(grants: list[dict[str, Any]], now: float) -> Iterator[Finding]:
    """The grants that fail, since when, and what to do. A revoked grant is no problem: somebody wanted that. Pure."""
    grants = [each for each in grants if each["state"] != LOCKED]  # what keeps them all is said already
    troubled = [each for each in grants if each["last_error"] or each["state"] in ("needs_login", "misconfigured")]
    troubled = [each for each in troubled if each["state"] != "revoked"]
    for each in troubled[:GRANTS_SHOWN]:
        yield _of_grant(each, now)
    if (more := len(troubled) - GRANTS_SHOWN) > 0:
        yield warning(GRANTS, f"{more} more fail", "brokerctl status")
    if grants and not troubled:
        alone = f"{grants[0]['name']} does not fail"
        yield ok(GRANTS, alone if len(grants) == 1 else f"none of the {len(grants)} that you may see fails")


def _of_grant(grant: dict[str, Any], now: float) -> Finding:
    name, since, error = grant["name"], grant.get("failing_since"), grant["last_error"] or "it has no token"
    when, what = "" if since is None else f" {lasting(since, now)}", split(error)[0]
    to_fix = (remedy(grant) or f"{GOES_ON}; to see when: brokerctl status {name}").replace(
        BY_CAUSE[Cause.UNREACHABLE], LOOK_HERE
    )
    match grant["state"]:
        case "needs_login":
            return problem(GRANTS, f"{name} needs a login{when}: {what}", to_fix)
        case "misconfigured":
            return problem(GRANTS, f"{name} is misconfigured{when}: {what}", to_fix)
    return warning(GRANTS, f"{name} fails{when}: {what}", to_fix)


def refused_with(path: Path, *, knock: bool) -> int:
    """The errno of a connection to the socket; 0: it is accepted. Without `knock`, only its mode is looked at."""
    if not knock:
        return 0 if os.access(path, os.W_OK) else errno.EACCES
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.setblocking(False)
        found = probe.connect_ex(str(path))
    return 0 if found == errno.EAGAIN else found  # its queue is full: somebody listens


def who_may_connect(found: os.stat_result) -> str:
    """Who may connect, by the socket's mode. What they get is for the rules to say."""
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    who = ["root"]
    if found.st_mode & stat.S_IWUSR and found.st_uid:
        who.append(account_of(found.st_uid).name)
    if found.st_mode & stat.S_IWGRP:
        inside = members(found.st_gid)
        shown = f" ({', '.join(inside[:SHOWN])}{', …' if len(inside) > SHOWN else ''})" if inside else ""
        who.append(f"the group {group_name(found.st_gid)}{shown}")
    return " and ".join((", ".join(who[:-1]), who[-1])) if len(who) > 1 else who[0]
