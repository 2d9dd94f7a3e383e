# The methods of docs/protocol.md: their parameters checked, the rules asked, the broker told. It sees no bytes.
from __future__ import annotations

import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from brokerd import __version__
from brokerd.audit import Audit
from brokerd.broker import Broker
from brokerd.core.admission import DENIAL, LOOK, Account
from brokerd.core.failure import Code, Failure, unknown
from brokerd.core.policy import Action, Caller, Policy
from brokerd.core.record import AccessToken
from brokerd.core.secret import Secret
from brokerd.dialects.dialect import DEFAULT_PRESENT
from brokerd.metrics import Metrics
from brokerd.reload import Changes

PROTOCOL = 1
MAX_MESSAGE = 64 * 1024  # bytes
MAX_IN_FLIGHT = 128  # requests waiting on one connection
MANY = 64  # grants in one get_many or watch
TURN = 50  # grants that one status looks at before other callers have their turn
WAIT, WAIT_LONGEST = 10.0, 60.0  # seconds
NOT_ADOPTED = "the store was restored or copied to this machine: nothing is spent until: brokerctl adopt"
LARGE = frozenset({"status"})  # methods whose answers may have megabytes
Later = Callable[[], Awaitable[object]]
Notify = Callable[[str, dict[str, object]], Awaitable[bool]]


@dataclass(eq=False, slots=True)
class Session:
    """What is known of a connection: who calls, what he may get by which rules, and what he watches."""

    caller: Caller
    account: Account
    notify: Notify
    rules: Policy | None = None
    may_get: dict[str, bool] = field(default_factory=dict)
    watching: dict[str, Callable[[str], None]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    wake: trio.Event = field(default_factory=trio.Event)
    pusher: trio.CancelScope | None = None


Handler = Callable[[Session, dict[str, Any]], object]


class Methods:
    """Answers requests. `reload` reads the configuration again; it raises Failure."""

    def __init__(
        self,
        broker: Broker,
        nursery: trio.Nursery,
        reload: Callable[[], Awaitable[Changes]],
        audit: Audit,
        metrics: Metrics,
    ) -> None:
        self.audit = audit
        self.policy = Policy()  # the configuration's takes its place, and another one's at a reload
        self._broker = broker
        self._nursery = nursery
        self._reload = reload
        self._metrics = metrics
        self._started_at = round(time.time(), 2)
        get = {"grant": _text, "min_ttl": _seconds, "wait": _wait, "refused": _text, **VARIANT}
        self._handlers: dict[str, tuple[Handler, Mapping[str, Check], tuple[str, ...]]] = {
            "hello": (self._hello, {}, ()),
            "get": (self._get, get, ("grant",)),
            "get_many": (self._get_many, {"grants": _names, "min_ttl": _seconds, "wait": _wait}, ("grants",)),
            "watch": (self._watch, {"grants": _names}, ("grants",)),
            "unwatch": (self._unwatch, {"grants": _names}, ("grants",)),
            "status": (self._status, {"grants": _names_of_any_number}, ()),
            "refresh": (self._refresh, {"grant": _text, "wait": _wait}, ("grant",)),
            "revoke": (self._revoke, {"grant": _text, "wait": _wait}, ("grant",)),
            "forget": (self._forget, {"grant": _text}, ("grant",)),
            "adopt": (self._adopt, {}, ()),
            "import": (self._import, {"grant": _text, "refresh_token": _text}, ("grant", "refresh_token")),
            "reload": (self._read_again, {}, ()),
        }

    def answer(self, session: Session, method: str, params: dict[str, Any]) -> object:
        """The result, or a function that brings it later. Raises Failure."""
        try:
            handler, checks, required = self._handlers[method]
        except KeyError:
            known = ", ".join(self._handlers)
            raise Failure(Code.BAD_REQUEST, f"unknown method {method[:40]!r}; known: {known}") from None
        for name, value in params.items():
            if name not in checks:
                known = ", ".join(checks) or "none"
                raise Failure(Code.BAD_REQUEST, f"{method}: unknown parameter {name[:40]!r}; known: {known}")
            checks[name](f"{method}: {name}", value)
        for name in required:
            if name not in params:
                raise Failure(Code.BAD_REQUEST, f"{method}: the parameter {name} is required and missing")
        return handler(session, params)

    def end(self, session: Session) -> None:
        """The connection is gone: nothing is pushed to it any more."""
        for name, tell in session.watching.items():
            self._broker.unwatch(name, tell)
        session.watching.clear()
        if session.pusher is not None:
            session.pusher.cancel()

    # -- who may

    def _require(self, session: Session, action: Action, grant: str, method: str) -> None:
        if self.policy.allows(session.caller, action, grant):
            return
        self._deny(session, method, grant)
        if grant in self._broker.grants and self.policy.allows(session.caller, Action.STATUS, grant):
            raise Failure(Code.DENIED, f"{grant}: you may not {action} it; see [[allow]] in the configuration", grant)
        raise unknown(grant)

    def _require_administration(self, session: Session, method: str) -> None:
        if not self.policy.allows_administration(session.caller):
            self._deny(session, method, "*")
            words = f'{method}: only root, the daemon\'s user, and rules with grants = ["*"] and the action admin may'
            raise Failure(Code.DENIED, words)

    def _deny(self, session: Session, method: str, grant: str) -> None:
        self._metrics.denials.inc()
        session.account.charge(DENIAL, trio.current_time())
        caller = session.caller
        self.audit.denied(method, grant[:128], pid=caller.pid, uid=caller.uid, user=caller.user)

    def _may_get(self, session: Session, grant: str) -> bool:
        if session.rules is not self.policy:
            session.rules = self.policy
            session.may_get.clear()
        known = session.may_get.get(grant)
        if known is None:
            known = self.policy.allows(session.caller, Action.GET, grant)
            if grant in self._broker.grants:  # a made-up name is not worth remembering
                session.may_get[grant] = known
        return known

    # -- fetching

    def _get(self, session: Session, params: dict[str, Any]) -> object:
        """A living token at once: nearly every request is one of these. Else later."""
        grant = params["grant"]
        if not self._may_get(session, grant):
            self._require(session, Action.GET, grant, "get")
        min_ttl, refused = params.get("min_ttl", 0.0), params.get("refused")
        token = self._broker.cached(grant, min_ttl, refused)
        if token is None:
            return lambda: self._fetch(session, grant, min_ttl, params.get("wait", WAIT), refused)
        self._metrics.gets_cached.inc()
        return self._as_map(session, grant, token)

    async def _fetch(
        self, session: Session, grant: str, min_ttl: float, wait: float, refused: str | None = None
    ) -> dict[str, object]:
        token = await self._broker.get(grant, min_ttl=min_ttl, wait=wait, refused=refused)
        return self._as_map(session, grant, token)

    def _as_map(self, session: Session, grant: str, token: AccessToken) -> dict[str, object]:
        found: dict[str, object] = {
            "grant": grant,
            "value": token.value.reveal(),
            "token_type": token.token_type,
            "expires_at": self._broker.expires_at(token),
        }
        present = self._broker.grants[grant].settings.provider.dialect.present(token.token_type)
        if present is not DEFAULT_PRESENT:
            found["present"] = present
        self.audit.fetched(grant, session.caller)
        return found

    def _get_many(self, session: Session, params: dict[str, Any]) -> Later:
        grants = params["grants"]
        min_ttl, wait = params.get("min_ttl", 0.0), params.get("wait", WAIT)
        found: list[dict[str, object]] = [{} for _ in grants]

        async def one(index: int, grant: str) -> None:
            try:
                self._require(session, Action.GET, grant, "get_many")
                found[index] = {"token": await self._fetch(session, grant, min_ttl, wait)}
            except Failure as failure:
                found[index] = {"error": failure.as_map()}

        async def all_of_them() -> object:
            async with trio.open_nursery() as nursery:
                for index, grant in enumerate(grants):
                    nursery.start_soon(one, index, grant)
            return found

        return all_of_them

    # -- watching

    def _watch(self, session: Session, params: dict[str, Any]) -> dict[str, object]:
        grants = params["grants"]
        for grant in grants:
            self._require(session, Action.GET, grant, "watch")
            self._broker.held(grant)
        if len({*session.watching, *grants}) > MANY:
            raise Failure(Code.LIMIT, f"watch: expected at most {MANY} grants on a connection")
        for grant in grants:
            if grant not in session.watching:
                session.watching[grant] = tell = _teller(session)
                self._broker.watch(grant, tell)
            if self._broker.cached(grant) is not None:
                _teller(session)(grant)
        if session.pusher is None and session.watching:
            session.pusher = trio.CancelScope()
            self._nursery.start_soon(self._push, session, session.pusher, name="watch")
        return {"watching": sorted(session.watching)}

    def _unwatch(self, session: Session, params: dict[str, Any]) -> dict[str, object]:
        for grant in params["grants"]:
            tell = session.watching.pop(grant, None)
            if tell is not None:
                self._broker.unwatch(grant, tell)
            session.changed.discard(grant)
        return {"watching": sorted(session.watching)}

    async def _push(self, session: Session, scope: trio.CancelScope) -> None:
        """Tell the connection what became of the grants that it watches: of several changes, the last."""
        last: dict[str, object] = {}  # the value that was pushed, or the code
        with scope:
            while True:
                await session.wake.wait()
                session.wake = trio.Event()
                while session.changed:
                    grant = session.changed.pop()
                    method, params = self._event(session, grant)
                    told = params.get("value") or params["code"]
                    if last.get(grant) != told and not await session.notify(method, params):
                        return
                    last[grant] = told

    def _event(self, session: Session, grant: str) -> tuple[str, dict[str, object]]:
        held = self._broker.grants.get(grant)
        if held is None or not self.policy.allows(session.caller, Action.GET, grant):
            return "gone", {"grant": grant, **_without_grant(unknown(grant))}
        token = self._broker.cached(grant)
        if token is not None:
            return "token", self._as_map(session, grant, token)
        return "gone", {"grant": grant, **_without_grant(self._broker.failure(held))}

    # -- looking

    def _hello(self, _session: Session, _params: dict[str, Any]) -> dict[str, object]:
        return {
            "server": __version__,
            "protocol": PROTOCOL,
            "max_message": MAX_MESSAGE,
            "max_in_flight": MAX_IN_FLIGHT,
        }

    def _status(self, session: Session, params: dict[str, Any]) -> Later:
        for name in params.get("grants", ()):
            self._require(session, Action.STATUS, name, "status")
        names = params["grants"] if "grants" in params else sorted(self._broker.grants)
        session.account.charge(LOOK * len(names), trio.current_time())

        async def later() -> object:
            shown = []
            for number, name in enumerate(names, 1):
                if name in self._broker.grants and self.policy.allows(session.caller, Action.STATUS, name):
                    shown.append(self._broker.status(name))
                if number % TURN == 0:
                    await trio.lowlevel.checkpoint()
            return {"daemon": self._daemon(), "grants": shown}

        return later

    def _daemon(self) -> dict[str, object]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "locked": False,
            "store": self._store_trouble(),
            "store_since": self._broker.store.since,
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }

    def _store_trouble(self) -> str | None:
        store = self._broker.store
        return "; ".join(filter(None, (None if store.adopted else NOT_ADOPTED, store.trouble))) or None

    # -- changing

    def _refresh(self, session: Session, params: dict[str, Any]) -> Later:
        grant = params["grant"]
        self._require(session, Action.REFRESH, grant, "refresh")

        async def later() -> object:
            token = await self._broker.refresh(grant, wait=params.get("wait", WAIT))
            return {"grant": grant, "expires_at": self._broker.expires_at(token)}

        return later

    def _revoke(self, session: Session, params: dict[str, Any]) -> Later:
        grant = params["grant"]
        self._require(session, Action.REVOKE, grant, "revoke")

        async def later() -> object:
            done = await self._broker.revoke(grant, wait=params.get("wait", WAIT))
            return {"grant": grant, "stored": done.stored, "provider": done.provider, "detail": done.detail}

        return later

    def _import(self, session: Session, params: dict[str, Any]) -> Later:
        grant = params["grant"]
        self._require(session, Action.LOGIN, grant, "import")
        if not params["refresh_token"]:
            raise Failure(Code.BAD_REQUEST, "import: expected a refresh token, found empty text")

        async def later() -> object:
            return {
                "grant": grant,
                "generation": await self._broker.import_token(grant, Secret(params["refresh_token"])),
            }

        return later

    def _forget(self, session: Session, params: dict[str, Any]) -> Later:
        self._require_administration(session, "forget")

        async def later() -> object:
            return {"grant": params["grant"], "forgotten": await self._broker.forget(params["grant"])}

        return later

    def _adopt(self, session: Session, _params: dict[str, Any]) -> Later:
        self._require_administration(session, "adopt")

        async def later() -> object:
            return {"adopted": await self._broker.adopt()}

        return later

    def _read_again(self, session: Session, _params: dict[str, Any]) -> Later:
        self._require_administration(session, "reload")

        async def later() -> object:
            changes = await self._reload()
            return {"changed": changes.changed, "added": changes.added, "removed": changes.removed}

        return later


def waits(method: str, params: dict[str, Any]) -> int:
    """As how many waiting requests one counts that was found to be right."""
    return max(1, len(params["grants"])) if method == "get_many" else 1


def _teller(session: Session) -> Callable[[str], None]:
    def tell(name: str) -> None:
        session.changed.add(name)
        session.wake.set()

    return tell


def _without_grant(failure: Failure) -> dict[str, object]:
    return {"code": str(failure.code), "message": failure.message}


# -- parameters

Check = Callable[[str, object], None]


def _wrong(what: str, wanted: str) -> Failure:
    return Failure(Code.BAD_REQUEST, f"{what}: expected {wanted}")


def _text(what: str, value: object) -> None:
    if type(value) is not str:
        raise _wrong(what, "text")


def _seconds(what: str, value: object) -> None:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:  # type: ignore[arg-type, operator]
        raise _wrong(what, "a number of seconds, 0 or more")


def _wait(what: str, value: object) -> None:
    _seconds(what, value)
    if value > WAIT_LONGEST:  # type: ignore[operator]
        raise _wrong(what, f"at most {WAIT_LONGEST:g} seconds, found {value:g}")


def _names_of_any_number(what: str, value: object) -> None:
    if type(value) is not list or not all(type(each) is str for each in value):
        raise _wrong(what, "an array of grant names")


def _names(what: str, value: object) -> None:
    _names_of_any_number(what, value)
    if len(value) > MANY:  # type: ignore[arg-type]
        raise _wrong(what, f"at most {MANY} names")


def _no_variant(what: str, _value: object) -> None:
    raise Failure(Code.BAD_REQUEST, f"{what}: this version serves a grant's own token only; leave it out")


VARIANT: Mapping[str, Check] = {"scope": _no_variant, "audience": _no_variant, "resource": _no_variant}
