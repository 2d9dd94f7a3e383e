# Shared tokens: which callers have one, and what each says at every moment. A token is written only after the rules,
# the evidence and the caller's life were looked at (law 9); who loses the right finds nothing any more.
from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import trio
from msgpack import packb

from brokerd.broker.broker import TokenBroker
from brokerd.broker.live_grant import LiveGrant
from brokerd.core.access.admission import GLANCE
from brokerd.core.errors import Code, Failure
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.ports import TokenMemory
from brokerd.core.shared_token import BEAT_EVERY, NO_TOKEN, Content, SharedState, SharedTokenWriter
from brokerd.core.timing.moment import Moment, seconds_until
from brokerd.dialects.dialect import DEFAULT_PRESENT
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.server.token_memories import TokenMemories, full
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

LOOK_EVERY = 0.008  # seconds between looks at callers of whom rules ask for evidence,
LOOKING_MOST = 0.1  # and the part of brokerd's time that these looks may take
LOOKED_AT_FOR = 600.0  # seconds, after which who still reads asks again: looks at idle programs would never end
TURN = 8  # shared tokens that are written before other callers have their turn
MOST_ON_CONNECTION = 64
LOST, REVOKED, ENDED = "the caller may not have it any more", "the grant was revoked", "the caller has ended"
ASKED_AGAIN, DISCONNECTED = "the caller asked for it again", "the connection has ended"
OVER = "its caller was looked at for ten minutes; who still reads it asks again"
FAULT = "a fault of brokerd"
UNSEEN = "the rules ask for evidence about this caller that brokerd cannot read without waiting"


@dataclass(eq=False, slots=True)
class SharedToken:
    """What one caller reads of one grant. `token`: what it says now. `since`: when it was opened, in Unix seconds, and
    `opened`: on trio's clock."""

    grant: str
    session: CallerSession
    memory: TokenMemory
    writer: SharedTokenWriter
    since: float
    opened: float
    notice: Callable[[str], None]
    token: AccessToken | None = None


@dataclass(eq=False, slots=True)
class SharingCaller:
    """A connection that has shared tokens, by grant. `following` waits for the end of its process. `looking`: its
    evidence is being read, and meanwhile its shared tokens say nothing."""

    session: CallerSession
    shared: dict[str, SharedToken] = field(default_factory=dict)
    following: trio.CancelScope = field(default_factory=trio.CancelScope)
    looking: trio.CancelScope | None = None


class SharedTokens:
    """All shared tokens. Their tasks run in `nursery`, the daemon's."""

    def __init__(
        self,
        broker: TokenBroker,
        rights: Rights,
        nursery: trio.Nursery,
        events: EventLog,
        metrics: Metrics,
        memories: TokenMemories,
    ) -> None:
        self._broker = broker
        self._rights = rights
        self._nursery = nursery
        self._events = events
        self._metrics = metrics
        self._memories = memories
        self._callers: dict[CallerSession, SharingCaller] = {}
        self._counts = Counter[str]()
        self._changed: dict[SharedToken, None] = {}
        self._wake = trio.Event()
        self._tending = False

    # -- opening and closing

    def open(self, session: CallerSession, grant: str) -> int:
        """A shared token of the grant, which the caller may get: a descriptor of its memory. Raises Failure."""
        live = self._broker.grant(grant)
        if (caller := self._callers.get(session)) is not None and grant in caller.shared:
            self._close(caller.shared[grant], ASKED_AGAIN)
        token = self._token_for(session, grant)
        if not isinstance(token, AccessToken):
            raise token or self._broker.failure(live)
        if not self._is_seen(session, grant):
            raise Failure(Code.BAD_REQUEST, f"{grant}: {UNSEEN}; ask by get", grant)
        if not _content(live, token, self._broker.now()).fits:
            raise Failure(Code.BAD_REQUEST, f"{grant}: its token is too long to be shared; ask by get", grant)
        own = self._callers.get(session)
        if own is not None and len(own.shared) >= MOST_ON_CONNECTION:
            raise full(f"{MOST_ON_CONNECTION} shared tokens on a connection")
        limited = session.account.rate < math.inf
        memory, descriptor = self._memories.make(grant, session.caller.uid, limited=limited)
        writer, at = SharedTokenWriter(memory.view), trio.current_time()
        shared = SharedToken(grant, session, memory, writer, time.time(), at, self._notice_of(session))
        self._begin(shared)
        self._update(shared)
        return descriptor

    def _begin(self, shared: SharedToken) -> None:
        session, grant = shared.session, shared.grant
        if (caller := self._callers.get(session)) is None:
            caller = self._callers[session] = SharingCaller(session)
            self._nursery.start_soon(self._follow, caller, name="end of a sharing caller")
        caller.shared[grant] = shared
        self._broker.watch(grant, shared.notice)
        self._counts[grant] += 1
        self._metrics.shared_tokens.inc()
        if not self._tending:
            self._tending = True
            self._nursery.start_soon(self._tend, name="shared tokens")
        self._wake.set()

    def end(self, session: CallerSession, why: str = DISCONNECTED) -> None:
        """The connection, or its caller, has ended."""
        if (caller := self._callers.get(session)) is not None:
            for shared in [*caller.shared.values()]:
                self._close(shared, why)

    def _end_safely(self, session: CallerSession, why: str) -> None:
        """The same in a task of ours. A fault in one end leaves out no other."""
        while session in self._callers:
            try:
                self.end(session, why)
            except Exception:
                self._events.bug("end of a shared token")

    def count(self, grant: str) -> int:
        """How many connections have a shared token of the grant."""
        return self._counts[grant]

    def _close(self, shared: SharedToken, why: str) -> None:
        """No byte of a token is left in it, and nothing follows."""
        session, grant = shared.session, shared.grant
        caller = self._callers[session]
        del caller.shared[grant]
        if not caller.shared:
            del self._callers[session]
        shared.writer.close()
        self._memories.close(shared.memory, session.caller.uid)
        self._broker.unwatch(grant, shared.notice)
        self._changed.pop(shared, None)
        self._counts[grant] -= 1
        self._metrics.shared_tokens.dec()
        if not caller.shared:
            caller.following.cancel()
            if caller.looking is not None:
                caller.looking.cancel()
            self._wake.set()
        self._events.share_ended(grant, session.caller, shared.since, why)

    # -- what they say

    def _token_for(self, session: CallerSession, grant: str) -> AccessToken | Failure | None:
        """What the caller may have of the grant now, by the evidence that it showed last. A Failure: nothing, and time
        alone will not change that."""
        broker, live = self._broker, self._broker.grants.get(grant)
        if broker.locked:
            return broker.locked_failure()
        if live is None or not self._rights.may_get(session, grant):
            return Failure(Code.UNKNOWN_GRANT, LOST)
        if live.stopped or live.record.state is State.REVOKED:
            return Failure(Code.REVOKED, REVOKED)
        return None if self._events.forbids_serving else broker.cached(grant)

    def _is_seen(self, session: CallerSession, *grants: str) -> bool:
        """Whether the evidence that rules ask for could be read now, without waiting."""
        try:
            return session.process.lives() and self._rights.up_to_date(session, grants)
        except OSError:
            return False

    def _notice_of(self, session: CallerSession) -> Callable[[str], None]:
        def notice(grant: str) -> None:
            """Something may have changed. What is not certain any more goes at once, and all the rest in turns."""
            caller = self._callers.get(session)
            if caller is None or (shared := caller.shared.get(grant)) is None:
                return
            rules_changed = session.rules is not self._rights.policy
            if rules_changed or self._broker.locked or self._broker.cached(grant) is None:
                self._say_nothing(shared)
            self._changed[shared] = None
            self._wake.set()

        return notice

    def _update(self, shared: SharedToken) -> None:
        """Have it say what is true now."""
        session, caller = shared.session, self._callers[shared.session]
        if not session.process.lives():
            self.end(session, ENDED)
        elif caller.looking is not None or not self._is_seen(session, shared.grant):
            self._say_nothing(shared)
            if caller.looking is None:
                caller.looking = trio.CancelScope()
                self._nursery.start_soon(self._look, caller, caller.looking, name="look at a sharing caller")
        elif isinstance(token := self._token_for(session, shared.grant), Failure):
            self._close(shared, token.message)
        else:
            if token is None:
                self._say_nothing(shared)
            elif token is not shared.token:
                self._say(shared, token)
            shared.writer.beat(self._broker.now().boot)

    def _say(self, shared: SharedToken, token: AccessToken) -> None:
        """The only place where a token is written to memory that a caller reads."""
        session, grant = shared.session, shared.grant
        content = _content(self._broker.grants[grant], token, self._broker.now())
        session.account.charge(1.0, trio.current_time())
        if not content.fits:
            self._say_nothing(shared)
            return
        ground = self._rights.rule_for
        self._events.fetched(grant, session.caller, token, ground, "share")
        self._metrics.shared_token_writes.inc()
        shared.writer.write(content)
        shared.token = token

    def _say_nothing(self, shared: SharedToken) -> None:
        if shared.token is not None:
            shared.writer.write(NO_TOKEN)
            shared.token = None

    # -- tasks

    async def _follow(self, caller: SharingCaller) -> None:
        """Until the caller's process has ended. Its connection may live on with a child."""
        with caller.following:
            await trio.lowlevel.checkpoint_if_cancelled()  # if the connection has ended already, its pidfd is closed
            try:
                await caller.session.process.until_ended()
            except Exception:
                self._events.bug("end of a sharing caller")
            self._end_safely(caller.session, ENDED)

    async def _look(self, caller: SharingCaller, scope: trio.CancelScope) -> None:
        """Read the evidence about the caller, which may take a file system's time. What cannot be glanced at afterwards
        cannot be watched."""
        session = caller.session
        with scope:
            try:
                await self._rights.look(session, [*caller.shared])
                caller.looking = None
                if not self._is_seen(session, *caller.shared):
                    self.end(session, UNSEEN)
            except OSError:
                self._end_safely(session, ENDED)
            except Exception:
                self._events.bug("look at a sharing caller")
                self._end_safely(session, FAULT)
            self._changed.update(dict.fromkeys(caller.shared.values()))
            self._wake.set()

    async def _tend(self) -> None:
        """As long as there are shared tokens, or closed ones that are still held. A fault of ours ends nothing else."""
        try:
            await self._tend_all()
        except Exception:
            self._events.bug("shared tokens")
            for session in [*self._callers]:
                self._end_safely(session, FAULT)
        finally:
            self._tending = False

    async def _tend_all(self) -> None:
        beat_at = -math.inf
        while self._callers or self._memories.has_closed:
            now = trio.current_time()
            if now >= beat_at:
                beat_at = now + BEAT_EVERY
                self._memories.forget_released()
                for caller in self._callers.values():
                    self._changed.update(dict.fromkeys(caller.shared.values()))
            look_at = await self._look_at_callers()
            await self._update_changed()
            with trio.move_on_at(min(beat_at, look_at)):
                await self._wake.wait()
            self._wake = trio.Event()

    async def _update_changed(self) -> None:
        number = 0
        while self._changed:
            shared = next(iter(self._changed))
            del self._changed[shared]
            self._update(shared)
            number += 1
            if number % TURN == 0:
                await trio.lowlevel.checkpoint()

    async def _look_at_callers(self) -> float:
        """Glance at those whose program or unit a rule names, in turns. Returns when to do so again."""
        number, took = 0, 0.0
        for session, caller in [*self._callers.items()]:
            began = trio.current_time()
            if self._callers.get(session) is caller and self._look_at(caller, began):
                number += 1
                took += trio.current_time() - began
                if number % TURN == 0:
                    await trio.lowlevel.checkpoint()
        return trio.current_time() + max(LOOK_EVERY, took / LOOKING_MOST) - took if number else math.inf

    def _look_at(self, caller: SharingCaller, now: float) -> bool:
        """False: there is nothing to look at."""
        session = caller.session
        if caller.looking is not None or not self._rights.needs(session, [*caller.shared]):
            return False
        for shared in [each for each in caller.shared.values() if now >= each.opened + LOOKED_AT_FOR]:
            self._close(shared, OVER)
        if not (grants := [*caller.shared]):
            return False
        session.account.charge(GLANCE, now)
        before = session.caller
        if not self._is_seen(session, *grants) or session.caller is not before:
            self._changed.update(dict.fromkeys(caller.shared.values()))
        return True


def _content(live: LiveGrant, token: AccessToken, now: Moment) -> Content:
    """What a shared token of the grant says while this is its token."""
    rest: dict[str, object] = {"token_type": token.token_type}
    present = live.settings.provider.dialect.present(token.token_type)
    if present is not DEFAULT_PRESENT:
        rest["present"] = present
    if token.fields:
        rest["fields"] = {name: value.reveal() for name, value in token.fields.items()}
    expires = lifetime = math.inf
    if token.lifetime is not None and token.expires is not None:
        lifetime, expires = token.lifetime, now.boot + seconds_until(token.expires, now)
    value = token.value.reveal().encode()
    return Content(SharedState.TOKEN, live.record.generation, expires, lifetime, value, packb(rest))
