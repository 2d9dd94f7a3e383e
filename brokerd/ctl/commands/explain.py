# The explain command: what brokerd knows of a process, what that process may do with a grant, and what each rule says.
from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from brokerd_client import Broker

from brokerd.ctl.terminal import Failed, plain, write, write_json

DESCRIBED = ("unit", "user_unit", "slice", "container", "exe", "sha256")
REFUSED = 3


def explain(broker: Broker, arguments: Namespace) -> int:
    """Print it. Ends with 3 if nothing is allowed."""
    params = {name: value for name in ("pid", "user", *DESCRIBED) if (value := getattr(arguments, name)) is not None}
    if arguments.credential:
        params["credential"] = arguments.grant
        if "unit" not in params or "user" in params or "pid" in params:
            raise Failed("--credential is about a unit that starts: add --unit UNIT, without --as and --pid")
    elif "pid" in params and len(params) > 1:
        raise Failed("--pid and --as cannot be used together; see brokerctl explain --help")
    elif "user" not in params and any(name in params for name in DESCRIBED):
        raise Failed("options that describe a process need its user: add --as USER")
    found = broker.call("explain", grant=arguments.grant, **params)
    if arguments.json:
        write_json(found)
    else:
        for line in (*_lines(found), *_proxies(found)):
            write(plain(line))
    return 0 if found["allowed"] else REFUSED


def _lines(found: dict[str, Any]) -> list[str]:
    caller, allowed = found["caller"], found["allowed"]
    lines = [_who(caller)]
    for name in DESCRIBED:
        if caller[name] is not None:
            lines.append(f"  {name}: {caller[name]}")
        elif name in caller["unread"]:
            lines.append(f"  {name}: {caller['unread'][name]}")
    lines.append(f"{found['grant']}: {'may ' + ', '.join(allowed) if allowed else 'nothing is allowed'}")
    if found["trusted"]:
        lines.append("  root and brokerd's own user need no rule")
    for rule in found["rules"] or ():
        only = f" for {', '.join(rule['variants'])} alone" if rule["variants"] else ""
        verdict = f"allows {', '.join(rule['actions'])}{only}" if rule["matches"] else "does not match"
        lines.append(f"  {rule['rule']}: {verdict}")
        if not rule["matches"]:
            lines += [f"    {'; '.join(each)}" for each in rule["objections"]]
    if found["rules"] is None:
        lines.append("  only administrators may see the rules")
    elif not found["rules"] and not found["trusted"]:
        lines.append("  no rule names this grant; see [[allow]] in brokerd.toml(5)")
    return lines


def _proxies(found: dict[str, Any]) -> Iterator[str]:
    """The proxies of the machine that add the grant's token, and whether the caller may use them."""
    from brokerd.config import proxies
    from brokerd.core.access.policy import Caller, Evidence

    caller = found["caller"]
    evidence = Evidence(**{name: caller[name] for name in DESCRIBED}, unread=caller["unread"])
    ids = caller["pid"] or 0, caller["uid"], frozenset(caller["gids"])
    asks = Caller(*ids, caller["user"], frozenset(caller["groups"]), caller["foreign"], evidence=evidence)
    for path in sorted(proxies.FOLDER.glob("*.toml")):
        with suppress(OSError):
            for proxy in proxies.read(path)[0]:
                if proxy.source.grant == found["grant"]:
                    may = "may be used" if any(each.matches(asks) for each in proxy.callers) else "may not be used"
                    yield f"{path}: the proxy {proxy.name} adds its token; {may} by this process, at {proxy.place}"


def _who(caller: dict[str, Any]) -> str:
    if caller.get("credential"):
        return "systemd, which fetches a credential for a unit"
    process = f"pid {caller['pid']}" if caller["pid"] else "a process"
    groups = ", ".join(caller["groups"]) or ", ".join(map(str, caller["gids"]))
    abroad = ", in another pid namespace" if caller["foreign"] else ""
    return f"{process} of {caller['user'] or caller['uid']} ({caller['uid']}), groups {groups}{abroad}"
