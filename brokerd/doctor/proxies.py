# Checks the files of brokerd-proxy@NAME (brokerd-proxy.toml(5)): what they say, whether their grants are configured and
# a rule gives them to the unit, and whether an enabled unit runs.
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from brokerd.config import proxies as files
from brokerd.config.metadata import EndpointSettings
from brokerd.config.proxies import ProxySettings
from brokerd.config.toml_files import DEFAULT_CONFIG
from brokerd.core.access.policy import Action, Caller, Evidence, Policy, Selector
from brokerd.core.grant.target import Target
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, ok, problem, problem_from, warning
from brokerd.edge.peer.accounts import account, group_name
from brokerd.edge.systemd import units

NAME = "proxies"
USER, CALLERS = "brokerd-proxy", "brokerd-callers"  # of the unit
CORRECT = "correct it: brokerd-proxy.toml(5)"


def forwarded(facts: Facts) -> Iterator[Finding]:
    if facts.path != DEFAULT_CONFIG:
        return  # they belong to the machine's brokerd
    for path in sorted(files.FOLDER.glob("*.toml")):
        found, errors = files.read(path)
        for error in errors:
            yield problem_from(NAME, str(error), CORRECT)
        unit = f"brokerd-proxy@{path.stem}.service"
        state = None if facts.unit is None else units.find(unit, own=False)
        user = (state["User"] if state else "") or USER
        faults = [fault for each in found for fault in _of_proxy(path, unit, each, facts)]
        faults += [fault for each in found for fault in _of_clients(path, unit, user, each, facts)]
        yield from faults
        if state is not None and state["UnitFileState"] == "enabled" and state["ActiveState"] != "active":
            yield problem(NAME, f"{unit} is enabled and {state['ActiveState']}", f"journalctl -u {unit} -n 20")
        elif not errors and not faults:
            places = ", ".join(f"{each.name} at {each.place}" for each in found)
            yield ok(NAME, f"{path}: {places}")


def _of_proxy(path: Path, unit: str, proxy: ProxySettings | EndpointSettings, facts: Facts) -> Iterator[Finding]:
    if facts.configuration is None:
        return
    source = proxy.source
    if source.grant not in facts.configuration.grants:
        words = f"{path}: the grant {source.grant} of the proxy {proxy.name} is not in {facts.path}"
        yield problem(NAME, words, f"correct its name, or add the grant: brokerctl add --name {source.grant}")
        return
    policy = Policy(facts.configuration.rules)
    caller = Caller(0, -1, frozenset(), USER, frozenset((USER, CALLERS)), evidence=Evidence(unit=unit))
    if source.is_own:
        allowed = policy.allows(caller, Action.GET, source.grant)
    else:
        target = Target(source.scope, source.audience, source.resource)
        allowed = policy.allows_downscoped(caller, source.grant, target)
    if not allowed:
        words = f"{path}: no rule gives {unit} the token of {source.grant}, so the proxy {proxy.name} has none"
        yield problem(NAME, words, f'add: [[allow]] grants = ["{source.grant}"] caller = {{ unit = "{unit}" }}')


def _of_clients(
    path: Path, unit: str, user: str, proxy: ProxySettings | EndpointSettings, facts: Facts
) -> Iterator[Finding]:
    """Whether the clients could take the token themselves: the proxy hides it from them."""
    named = dict.fromkeys(each for each in map(_user, proxy.callers) if each is not None)
    for client in filter(None, map(account, named)):
        words = f"{path}: {client.name} may use the proxy {proxy.name} and "
        if client == account(user):
            remedy = f"let the proxy run as a user of its own: remove User= from the drop-ins of {unit}"
            yield warning(NAME, f"{words}is the user of {unit}: its programs can get the token as {unit} does", remedy)
        elif isinstance(proxy, ProxySettings) and facts.configuration is not None:
            groups = frozenset(filter(None, map(group_name, client.gids)))
            caller = Caller(0, client.uid, client.gids, client.name, groups)
            if Policy(facts.configuration.rules).allows(caller, Action.GET, proxy.source.grant):
                remedy = "remove that rule, unless the programs need the token too: brokerctl explain "
                remedy += f"{proxy.source.grant} --as {client.name}"
                yield warning(NAME, f"{words}a rule gives it the token of {proxy.source.grant} itself", remedy)


def _user(selector: Selector) -> str | int | None:
    """Whom it names, if it asks for nothing else: more evidence may not be had outside of a program."""
    return selector.uid if selector.user is None else selector.user
