# Logins by a person: at most one for each grant, from the first question until the tokens are stored. The dialect
# chooses the questions; server/ checks who may log in. A login that fails changes nothing.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from brokerd.broker.exchanges import ExchangeRunner, SecretsUnreadable
from brokerd.broker.grant_registry import GrantRegistry
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.single_flight import SingleFlight
from brokerd.core.errors import Code, Failure
from brokerd.core.events import Event
from brokerd.core.exchange.outcomes import Issued, Misconfigured, Outcome, Rejected, RetryLater, Tokens
from brokerd.core.exchange.steps import Ask, Brought
from brokerd.core.grant import issuance
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.history import Ended
from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import Operation
from brokerd.core.grant.state import State
from brokerd.core.ports import Clock, Entropy
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.telemetry import tracing
from brokerd.telemetry.event_log import EventLog

LONGEST = 900.0  # seconds from the beginning of a login to its end
MOST, MOST_OF_USER = 64, 8  # logins under way: in all, of one user
SHOWN = 80  # characters of a subject that are shown; the provider chose that text
SECOND_VISITOR = "second_visitor"  # brokerctl sends this alarm when a second browser asks for the one-time address
ALARMED = (
    "its one-time address was opened in a second browser, so somebody else may have tried to log in with their own "
    "account"
)
CANNOT_RENEW = (
    "the provider gave no refresh token, so another login is needed when this token ends; most providers give one if "
    'the scope has offline_access, some if authorization_params = { access_type = "offline" }'
)


@dataclass(slots=True)
class Prompt:
    """What is shown to the person now, in a form that every client of the protocol can show. `waits`: it needs an
    answer."""

    kind: str
    shown: Mapping[str, str | float]
    waits: bool
    answer: Brought | None = None
    answered: trio.Event = field(default_factory=trio.Event)


class Login:
    """One login. `step` counts what could be seen: prompts, and the end. `result` or `failure` is the end.

    It is the `Person` of provider.py. Cancelled, it ends at the next question or pause. When a request has left whose
    answer must not be lost, `shelter` keeps it running until the answer is stored.

    Many attributes: what a client sees of a login, how it ends and what it may change stand in one place."""

    def __init__(self, login_id: str, grant: LiveGrant, uid: int, *, names_account: bool) -> None:
        """`names_account`: before anything is kept, the person is told which account logged in, and confirms it."""
        self.id = login_id
        self.grant = grant
        self.uid = uid
        self.names_account = names_account
        self.ends_revocation = grant.record.state is State.REVOKED  # one that was there before it, and no later one
        self.step = 0
        self.prompt: Prompt | None = None
        self.result: dict[str, object] | None = None
        self.failure: Failure | None = None
        self.scope = trio.CancelScope(deadline=trio.current_time() + LONGEST)
        self.shelter = trio.CancelScope()
        self._cancelled = ("it took too long", Code.UNAVAILABLE)  # why, if `scope` ends it
        self._changed = trio.Event()

    @property
    def has_ended(self) -> bool:
        return self.result is not None or self.failure is not None

    def cancel(self, reason: str, code: Code = Code.UNAVAILABLE) -> None:
        self._cancelled = reason, code
        self.scope.cancel()

    def end(self, failure: Failure | None) -> None:
        """It has ended: with `result`, else with this failure, else because it was cancelled."""
        if self.result is None:
            reason, code = self._cancelled
            words = f"{self.grant.name}: the login ended: {reason}; nothing has changed"
            self.failure = failure or Failure(code, words, self.grant.name)
        self.prompt = None
        self._next_step()

    async def wait_past(self, step: int, wait: float) -> None:
        """Until there is more to see than `step`, for `wait` seconds at most. Raises the Failure of a failed login."""
        with trio.move_on_after(wait):
            while self.step <= step and not self.has_ended:
                await self._changed.wait()
        if self.failure is not None:
            raise self.failure

    def answer(self, step: int, answer: Brought) -> None:
        """The person answers the prompt of that step. Raises Failure."""
        prompt = self.prompt
        if step != self.step or prompt is None or not prompt.waits or prompt.answered.is_set():
            raise Failure(Code.BAD_REQUEST, "login_answer: nothing is asked at this step", self.grant.name)
        prompt.answer = answer
        prompt.answered.set()

    def _next_step(self) -> None:
        self.step += 1
        self._changed.set()
        self._changed = trio.Event()

    # -- as a Person

    async def ask(self, step: Ask) -> Brought | None:
        self.shelter.shield = False
        self.prompt = prompt = Prompt(step.kind, step.shown, step.waits)
        self._next_step()
        if not step.waits:
            return None
        await prompt.answered.wait()
        self.prompt = None
        return prompt.answer

    async def wait(self, seconds: float) -> None:
        self.shelter.shield = False
        await trio.sleep(seconds)

    async def hold(self) -> None:
        self.shelter.shield = True


@dataclass(eq=False, repr=False)
class Logins:
    """Runs logins in `nursery`, the daemon's."""

    _nursery: trio.Nursery
    _registry: GrantRegistry
    _single_flight: SingleFlight
    _clock: Clock
    _entropy: Entropy
    _runner: ExchangeRunner
    _events: EventLog
    _logins: dict[str, Login] = field(default_factory=dict)
    _under_way: dict[Login, trio.Event] = field(default_factory=dict)  # also those whose client has disconnected

    def begin(self, grant: LiveGrant, uid: int, *, names_account: bool = False) -> Login:
        """Begin a login for the grant; a login that is under way ends. Raises Failure."""
        ability = grant.ability(self._clock.now())
        issues = ability.issue and grant.record.state is State.REVOKED  # its credentials suffice, no person is needed
        if not ability.login and not issues:
            command = f"brokerctl {'refresh' if ability.issue else 'import'} {grant.name}"
            words = f"{grant.name}: a grant of this kind has no login; use instead: {command}"
            raise Failure(Code.BAD_REQUEST, words, grant.name)
        self.cancel(grant.name, "another login for this grant was begun")
        if len(self._logins) >= MOST or sum(each.uid == uid for each in self._logins.values()) >= MOST_OF_USER:
            words = f"too many logins are under way: at most {MOST_OF_USER} of one user, and {MOST} in all; end another"
            raise Failure(Code.LIMIT, words, retry_after=60.0)
        login = Login(self._entropy.bytes(16).hex(), grant, uid, names_account=names_account)
        self._logins[login.id], self._under_way[login] = login, trio.Event()
        self._registry.keep(grant)
        self._events.say(Event.LOGIN_BEGUN, **grant.about, uid=uid)
        self._nursery.start_soon(self._run, login, issues, name=f"login {grant.name}")
        return login

    def find(self, login_id: str, uid: int) -> Login:
        """A login of that user. Raises Failure."""
        login = self._logins.get(login_id)
        if login is None or login.uid != uid:
            words = "no such login is under way: it has ended, or brokerd was restarted; begin another login"
            raise Failure(Code.BAD_REQUEST, words)
        return login

    def cancel(self, name: str, reason: str) -> None:
        """End the login for a grant, if one is under way."""
        for login in tuple(self._logins.values()):
            if login.grant.name == name and not login.has_ended:
                login.cancel(reason)

    def grant_revoked(self, name: str) -> None:
        """The grant is being revoked: no login that was begun before ends that (law 10), also if it goes on until its
        tokens are there."""
        for login in self._under_way:
            if login.grant.name == name:
                login.ends_revocation = False
        self.cancel(name, "the grant was revoked meanwhile")

    def alarm(self, login: Login) -> None:
        """A second browser used the secret of this login, perhaps another person's with another account. End it."""
        if not login.has_ended:
            self._events.say(Event.LOGIN_ALARM, **login.grant.about, uid=login.uid, reason=ALARMED)
            login.cancel(ALARMED, Code.DENIED)

    def forget(self, login_id: str) -> None:
        """The client has its result, or the connection that began the login has ended."""
        login = self._logins.pop(login_id, None)
        if login is not None and not login.has_ended:
            login.cancel("the client that began it has disconnected")

    async def until_ended(self) -> None:
        """Wait for the logins that are under way. A cancelled one may still store what a request of it brings."""
        for ended in tuple(self._under_way.values()):
            await ended.wait()

    # -- one login

    async def _run(self, login: Login, issues: bool) -> None:
        name = login.grant.name
        failure: Failure | None = None
        tracing.current.set(tracing.begun(self._entropy, name, self._events.traces))
        try:
            with login.scope, login.shelter:
                if issues:  # no tokens are known yet; the next exchange gets them
                    login.result = await self._store(login, Tokens(), self._clock.now())
                else:
                    login.result = await self._log_in(login)
        except Failure as error:
            failure = error
        except Exception:
            self._events.bug("login", **login.grant.about)
            failure = Failure(Code.INTERNAL, f"{name}: the login failed by a fault of brokerd's own; see its log", name)
        finally:
            login.end(failure)
            if login.failure is not None:
                reason = login.failure.message
                self._events.say(Event.LOGIN_FAILED, **login.grant.about, uid=login.uid, reason=reason)
            self._registry.let_go(login.grant)
            self._under_way.pop(login).set()

    async def _log_in(self, login: Login) -> dict[str, object]:
        grant = login.grant
        try:
            ended = await self._runner.login(grant, login, login.hold)
        except SecretsUnreadable as error:
            raise Failure(Code.MISCONFIGURED, f"{grant.name}: {error}", grant.name) from None
        tokens = _tokens(grant.name, ended.outcome)
        before = grant.record.subject
        is_other = before is not None and before != tokens.subject
        if is_other or login.names_account:
            await self._confirm(login, tokens, ended.at, is_other=is_other)
        await login.hold()
        return await self._store(login, tokens, ended.at, self._runner.row(Operation.LOGIN, ended))

    async def _confirm(self, login: Login, tokens: Tokens, at: Moment, *, is_other: bool) -> None:
        """Ask the person whether this is the right account: always when it differs from the account of the last login.
        Without a yes nothing changes, and the new tokens are revoked. Raises Failure."""
        grant, confirmed = login.grant, False
        was, now = _shown(grant.record.subject), _shown(tokens.subject)
        account = {} if tokens.subject is None else {"now": now}
        try:
            answer = await login.ask(Ask("confirm", {"was": was, "now": now}) if is_other else Ask("account", account))
            confirmed = (answer or {}).get("confirm", Secret("")).reveal() == "yes"
        finally:
            if not confirmed:
                with trio.CancelScope(shield=True):
                    await self._single_flight.change_when_idle(
                        grant, lambda record: revocations.came_late(record, tokens, at)
                    )
        if not confirmed:
            account_words = f"{now}, not {was}," if is_other else now
            words = f"{grant.name}: the account {account_words} was not confirmed; nothing has changed"
            raise Failure(Code.DENIED, words, grant.name)

    async def _store(self, login: Login, tokens: Tokens, at: Moment, ended: Ended | None = None) -> dict[str, object]:
        """Store the tokens, then report it (law 2). A grant that was revoked meanwhile stays revoked (law 10)."""
        grant, jitter, revoked = login.grant, self._entropy.fraction(), False

        def step(record: Record) -> Record:
            nonlocal revoked
            revoked = record.state is State.REVOKED and not login.ends_revocation
            if revoked:
                return revocations.came_late(record, tokens, at)
            return issuance.granted(record, tokens, at, jitter, grant.settings.requested)

        await self._single_flight.change_when_idle(grant, step, ended)
        if revoked or not self._registry.holds(grant):
            words = f"{grant.name} was revoked, or its configuration changed, during the login; begin the login again"
            raise Failure(Code.UNAVAILABLE, words, grant.name)
        stored, generation = not grant.unstored, grant.record.generation
        subject = {} if tokens.subject is None else {"subject": _shown(tokens.subject)}
        self._events.say(
            Event.LOGIN_DONE, **grant.about, uid=login.uid, generation=generation, stored=stored, **subject
        )
        cannot_renew = tokens.access_token is not None and tokens.refresh_token is None
        return {
            "generation": generation,
            "stored": stored,
            "subject": subject.get("subject"),
            "note": CANNOT_RENEW if cannot_renew else None,
        }


def _tokens(name: str, outcome: Outcome) -> Tokens:
    """The tokens of a login that succeeded. Raises Failure."""
    match outcome:
        case Issued(tokens):
            return tokens
        case Rejected(reason):
            raise Failure(Code.DENIED, f"{name}: {reason}; to try again: brokerctl login {name}", name)
        case Misconfigured(reason):
            words = f"{name}: {reason}; to fix: change that, then: brokerctl login {name}"
            raise Failure(Code.MISCONFIGURED, words, name)
        case RetryLater(reason):
            raise Failure(Code.UNAVAILABLE, f"{name}: {reason}; to try again: brokerctl login {name}", name)
        case _:
            raise AssertionError(f"a login cannot end with {outcome}")


def _shown(subject: str | None) -> str:
    """A provider's name for an account, safe to show in terminals and logs."""
    if subject is None:
        return "(unknown)"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in subject)[:SHOWN]
