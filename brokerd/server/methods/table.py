# Every method of docs/protocol.md, one row each. A new method is a row here and a handler in a file beside it.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from brokerd.core.access.admission import LOOK
from brokerd.core.access.policy import Action
from brokerd.server.methods import parameters as p
from brokerd.server.methods.changes import ChangeMethods
from brokerd.server.methods.explain import CREDENTIAL, DESCRIPTION, ExplainMethod
from brokerd.server.methods.fleet import FleetMethod
from brokerd.server.methods.health import HealthMethods
from brokerd.server.methods.keys import KeyMethods
from brokerd.server.methods.log_level import LogLevelMethod
from brokerd.server.methods.login import LoginMethods
from brokerd.server.methods.method import ADMINISTRATION, NOBODY_ASKS, Handler, Method, Params, later
from brokerd.server.methods.overview import OverviewMethod
from brokerd.server.methods.proxied import ProxiedMethod
from brokerd.server.methods.share import ShareMethod
from brokerd.server.methods.status import StatusMethods
from brokerd.server.methods.status_watch import StatusWatchMethod
from brokerd.server.methods.tokens import TokenMethods
from brokerd.server.methods.trace import TraceMethods
from brokerd.server.methods.try_event import EventTestMethod
from brokerd.server.methods.watch import WatchMethods
from brokerd.server.session import CallerSession

SIGNING = 5.0  # as how many requests a proof counts, which is signed,
EXPLAINING = 10.0  # an explanation, for which a process is looked at,
CHANGE = 20.0  # and whatever the store or a provider has to work for
GRANT = {"grant": p.text}
WAITING = {"grant": p.text, "wait": p.wait}
LOGIN = {**WAITING, "account": p.boolean}
IMPORT = {**WAITING, "refresh_token": p.filled}
GET = {"grant": p.text, "min_ttl": p.seconds, "wait": p.wait, "refused": p.text, "refused_sha256": p.sha256, **p.TARGET}
GET_MANY = {"grants": p.names, "min_ttl": p.seconds, "wait": p.wait}
PROXIED = {"grant": p.text, "uses": p.uses, **p.TARGET}
PROOF = {**WAITING, "http_method": p.text, "url": p.text, "nonce": p.text}
EXPLAIN = {**GRANT, "pid": p.pid, **dict.fromkeys((*DESCRIPTION, CREDENTIAL), p.text)}
EVENT = {"event": p.text}
LEVEL = {"level": p.text, "for": p.seconds}
STATUS = {"grants": p.names_of_any_number, "history": p.boolean}
STEP = {"login": p.text, "step": p.count, "wait": p.wait}


def methods(
    tokens: TokenMethods,
    watches: WatchMethods,
    status: StatusMethods,
    health: HealthMethods,
    overview: OverviewMethod,
    status_watch: StatusWatchMethod,
    explain: ExplainMethod,
    changes: ChangeMethods,
    logins: LoginMethods,
    keys: KeyMethods,
    traces: TraceMethods,
    log_level: LogLevelMethod,
    tests: EventTestMethod,
    proxied: ProxiedMethod,
    share: ShareMethod,
    fleet: FleetMethod,
) -> Mapping[str, Method]:
    rows = {
        "hello": Method(status.hello, {}, right=NOBODY_ASKS, while_locked=True),
        "get": Method(tokens.get, GET, ("grant",)),
        "get_many": Method(later(tokens.get_many), GET_MANY, ("grants",), cost=_number, weight=_number),
        "proof": Method(later(tokens.proof), PROOF, ("grant", "http_method", "url"), Action.GET, cost=SIGNING),
        "share": Method(share.share, GRANT, ("grant",), Action.GET, cost=CHANGE),
        "proxied": Method(proxied.proxied, PROXIED, ("grant", "uses"), cost=_uses),
        "watch": Method(watches.watch, {"grants": p.names}, ("grants",), cost=_number),
        "unwatch": Method(watches.unwatch, {"grants": p.names}, ("grants",), NOBODY_ASKS, cost=_looks),
        "status": _of_all(status.status, STATUS, status.cost),
        "overview": _of_all(overview.overview, {"grants": p.names}, overview.cost),
        "fleet": Method(fleet.fleet, {}, cost=CHANGE, is_large=True, while_locked=True),
        "watch_status": Method(status_watch.watch_status, {}, while_locked=True),
        "metrics": _of_all(health.metrics, {}, status.cost),
        "live": Method(health.live, {}, right=NOBODY_ASKS, while_locked=True),
        "ready": Method(health.ready, {}, right=NOBODY_ASKS, while_locked=True),
        "grant_ready": Method(health.grant_ready, GRANT, ("grant",), Action.STATUS, while_locked=True),
        "verify": Method(later(status.verify), WAITING, ("grant",), Action.REFRESH, again=True, cost=CHANGE),
        "explain": Method(explain.explain, EXPLAIN, ("grant",), cost=EXPLAINING),
        "login": Method(logins.login, LOGIN, ("grant",), Action.LOGIN, cost=CHANGE, audited=True),
        "login_answer": Method(logins.answer, {**STEP, "answer": p.texts}, ("login", "step", "answer"), cost=CHANGE),
        "login_wait": Method(logins.wait, STEP, ("login", "step")),
        "refresh": _of_grant(changes.refresh, WAITING, Action.REFRESH, durable=False),
        "trace": _of_grant(traces.trace, {**GRANT, "only_wait": p.boolean}, Action.REFRESH, durable=False),
        "revoke": _of_grant(changes.revoke, {**WAITING, "local": p.boolean}, Action.REVOKE),
        "import": _of_grant(changes.import_token, IMPORT, Action.LOGIN, "refresh_token"),
        "import_part": Method(
            changes.import_part, {**GRANT, "part": p.filled}, ("grant", "part"), Action.LOGIN, cost=CHANGE
        ),
        "forget": _of_daemon(changes.forget, GRANT, ("grant",)),
        "adopt": _of_daemon(changes.adopt, {}),
        "trust": _of_daemon(changes.trust, {"provider": p.text}, ("provider",)),
        "reload": _of_daemon(changes.reload, {}),
        "lock": _of_daemon(keys.lock, {})._replace(while_locked=True, audited=False),
        "unlock": _of_daemon(keys.unlock, {"passphrase": p.text, "new": p.boolean})._replace(while_locked=True),
        "rotate_key": _of_daemon(keys.rotate_key, {"passphrase": p.text, "full": p.boolean}),
        "backup": _of_daemon(keys.backup, {"offset": p.count})._replace(while_locked=True, is_large=True),
        "log_level": _of_daemon(log_level.log_level, LEVEL)._replace(while_locked=True, durable=False),
        "test_event": _of_daemon(tests.try_event, EVENT, ("event",))._replace(while_locked=True, durable=False),
        "seal_audit": _of_daemon(keys.seal_audit, {})._replace(while_locked=True, audited=False, durable=False),
    }
    return {name: row._replace(parameters={**row.parameters, **p.COMMON}) for name, row in rows.items()}


def _of_all(handler: Handler, parameters: Mapping[str, p.Check], cost: Callable[[Params], float]) -> Method:
    """What is said about all grants that the caller may see."""
    return Method(handler, parameters, cost=cost, is_large=True, while_locked=True)


def _of_grant(
    handler: Callable[[CallerSession, Params], Awaitable[object]],
    parameters: Mapping[str, p.Check],
    right: Action,
    *required: str,
    durable: bool = True,
) -> Method:
    """What changes one grant."""
    names = ("grant", *required)
    return Method(later(handler), parameters, names, right, again=True, cost=CHANGE, audited=True, durable=durable)


def _of_daemon(
    handler: Callable[[CallerSession, Params], Awaitable[object]],
    parameters: Mapping[str, p.Check],
    required: tuple[str, ...] = (),
) -> Method:
    """What only administrators may do."""
    return Method(later(handler), parameters, required, ADMINISTRATION, cost=CHANGE, audited=True, durable=True)


def _number(params: dict[str, Any]) -> int:
    return len(params["grants"])


def _uses(params: dict[str, Any]) -> int:
    return len(params["uses"])


def _looks(params: dict[str, Any]) -> float:
    return LOOK * len(params["grants"])
