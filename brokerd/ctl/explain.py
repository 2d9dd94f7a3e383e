# The explain command: who a process is to brokerd, what it may do with a grant, and what each rule says of it.
from __future__ import annotations

from brokerd.ctl.terminal import Failed, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from brokerd_client import Broker

DESCRIBED = ("unit", "user_unit", "slice", "container", "exe", "sha256")
REFUSED = 3


def explain(broker: Broker, arguments: Namespace) -> int:
    """Say it. Ends with 3 where nothing is allowed."""
    params = {name: value for name in ("pid", "user", *DESCRIBED) if (value := getattr(arguments, name)) is not None}
    if "pid" in params and len(params) > 1:
        raise Failed("--pid and --as are different questions; see brokerctl explain --help")
    if "user" not in params and any(name in params for name in DESCRIBED):
        raise Failed("a description needs a user: add --as USER")
    found = broker.call("explain", grant=arguments.grant, **params)
    if arguments.json:
        import json

        write(json.dumps(found))
    else:
        for line in _lines(found):
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
        lines.append("  the rules are shown to administrators")
    elif not found["rules"] and not found["trusted"]:
        lines.append("  no rule names this grant; see [[allow]] in docs/configuration.md")
    return lines


def _who(caller: dict[str, Any]) -> str:
    process = f"pid {caller['pid']}" if caller["pid"] else "a process"
    groups = ", ".join(caller["groups"]) or ", ".join(map(str, caller["gids"]))
    abroad = ", in another pid namespace" if caller["foreign"] else ""
    return f"{process} of {caller['user'] or caller['uid']} ({caller['uid']}), groups {groups}{abroad}"
