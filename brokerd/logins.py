# Logins under way: one for each grant at most, each from its first question to the person until its tokens are stored.
# What is asked is the dialect's matter, who may ask is decided before. A login that fails changes nothing.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from brokerd.audit import Audit
from brokerd.core import record as records
from brokerd.core import revocation as revocations
from brokerd.core.exchange import Ask, Brought
from brokerd.core.failure import Code, Failure
from brokerd.core.grant import State
from brokerd.core.moment import Moment
from brokerd.core.outcome import Issued, Misconfigured, Outcome, Rejected, RetryLater, Tokens
from brokerd.core.ports import Clock, Entropy
from brokerd.core.record import Record
from brokerd.core.secret import Secret
from brokerd.exchanger import Exchanger, SecretsUnreadable
from brokerd.flights import Flights
from brokerd.held import HeldGrant

LONGEST = 900.0  # seconds from the beginning of a login to its end
MOST, MOST_OF_USER = 64, 8  # logins under way
SHOWN = 80  # characters of a subject, which is text of the provider's
SECOND_VISITOR = "second_visitor"  # the alarm of who listens for the browser
ALARMED = (
    "its one-time address was opened in a second browser, so somebody else may have tried to log in with their own "
    "account"
)
LACKING = (
    "the provider gave no refresh token, so another login is needed when this token ends; most want the scope "
    'offline_access for one, some authorization_params = { access_type = "offline" }'
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is shown to the person now, in a form that every client of the protocol can show."""

    kind: str
    shown: Mapping[str, str | float]
    waits: bool


class Login:
    """One login. `step` counts what there was to see: prompts, and the end. `result` or `failure` is the end.

    A `Person` to the provider: cancelled, it ends where it asks or waits; from the moment a request has left whose
    answer must not be lost it is held until that is stored, whoever goes away."""

    def __init__(self, name: str, held: HeldGrant, uid: int, *, names_account: bool) -> None:
        """`names_account`: who began it wants to hear whose login it is before anything is kept."""
        self.id = name
        self.held = held
        self.uid = uid
        self.names_account = names_account
        self.was_revoked = held.record.state is State.REVOKED
        self.step = 0
        self.prompt: Prompt | None = None
        self.result: dict[str, object] | None = None
        self.failure: Failure | None = None
        self.scope = trio.CancelScope(deadline=trio.current_time() + LONGEST)
        self.why, self.code = "it took too long", Code.UNAVAILABLE  # where the scope ends it
        self.shelter = trio.CancelScope()
        self._changed = trio.Event()
        self._brought: Brought | None = None
        self._answered = trio.Event()

    @property
    def has_ended(self) -> bool:
        return self.result is not None or self.failure is not None

    def moved(self) -> None:
        self.step += 1
        self._changed.set()
        self._changed = trio.Event()

    async def beyond(self, step: int, wait: float) -> None:
        """Until there is more to see than `step`, for `wait` seconds at most. Raises the Failure that it ended with."""
        with trio.move_on_after(wait):
            while self.step <= step and not self.has_ended:
                await self._changed.wait()
        if self.failure is not None:
            raise self.failure

    def answer(self, step: int, brought: Brought) -> None:
        """What the person brings to the prompt of that step."""
        if step != self.step or self.prompt is None or not self.prompt.waits or self._answered.is_set():
            raise Failure(Code.BAD_REQUEST, "login_answer: nothing is asked at this step", self.held.name)
        self._brought = brought
        self._answered.set()

    # -- as a Person

    async def ask(self, step: Ask) -> Brought | None:
        self.shelter.shield = False
        self.prompt, self._answered = Prompt(step.kind, step.shown, step.waits), trio.Event()
        self.moved()
        if not step.waits:
            return None
        await self._answered.wait()
        brought, self._brought, self.prompt = self._brought, None, None
        return brought

    async def wait(self, seconds: float) -> None:
        self.shelter.shield = False
        await trio.sleep(seconds)

    async def hold(self) -> None:
        self.shelter.shield = True


class Logins:
    """Runs logins in `nursery`, the daemon's."""

    def __init__(
        self,
        nursery: trio.Nursery,
        flights: Flights,
        clock: Clock,
        entropy: Entropy,
        exchanger: Exchanger,
        audit: Audit,
    ) -> None:
        self._logins: dict[str, Login] = {}
        self._nursery = nursery
        self._flights = flights
        self._clock = clock
        self._entropy = entropy
        self._exchanger = exchanger
        self._audit = audit

    def begin(self, held: HeldGrant, uid: int, *, names_account: bool = False) -> Login:
        """A new login for the grant; one that is under way ends. Raises Failure."""
        ability = held.ability(self._clock.now())
        issues = ability.issue and held.record.state is State.REVOKED  # from its credentials, without anybody's help
        if not ability.login and not issues:
            mends = f"brokerctl {'refresh' if ability.issue else 'import'} {held.name}"
            words = f"{held.name}: nobody can log in for a grant of its kind; what there is: {mends}"
            raise Failure(Code.BAD_REQUEST, words, held.name)
        self.end(held.name, "another login for this grant was begun")
        if len(self._logins) >= MOST or sum(each.uid == uid for each in self._logins.values()) >= MOST_OF_USER:
            words = f"expected at most {MOST_OF_USER} logins of a user at once, and {MOST} in all"
            raise Failure(Code.LIMIT, words, retry_after=60.0)
        login = Login(self._entropy.bytes(16).hex(), held, uid, names_account=names_account)
        self._logins[login.id] = login
        self._audit.said("login begun", **held.about, uid=uid)
        self._nursery.start_soon(self._run, login, issues, name=f"login {held.name}")
        return login

    def find(self, name: str, uid: int) -> Login:
        """A login of that user. Raises Failure."""
        login = self._logins.get(name)
        if login is None or login.uid != uid:
            words = "there is no such login under way: it has ended, or brokerd was restarted; begin another"
            raise Failure(Code.BAD_REQUEST, words)
        return login

    def end(self, grant: str, why: str) -> None:
        """End the login for a grant, if one is under way."""
        for login in tuple(self._logins.values()):
            if login.held.name == grant and not login.has_ended:
                login.why = why
                login.scope.cancel()

    def alarm(self, login: Login) -> None:
        """A second browser has come with the secret of a login: what it brings may be another person's. It ends."""
        if not login.has_ended:
            self._audit.warned("LOGIN ALARM", **login.held.about, uid=login.uid, reason=ALARMED)
            login.why, login.code = ALARMED, Code.DENIED
            login.scope.cancel()

    def forget(self, name: str) -> None:
        """Nobody asks for it any more: its end was heard, or the connection that began it has ended."""
        login = self._logins.pop(name, None)
        if login is not None and not login.has_ended:
            login.why = "who began it went away"
            login.scope.cancel()

    # -- one login

    async def _run(self, login: Login, issues: bool) -> None:
        grant = login.held.name
        failure: Failure | None = None
        try:
            with login.scope, login.shelter:
                # A grant that needs nobody begins anew, without tokens.
                start = self._store(login, Tokens(), self._clock.now()) if issues else self._log_in(login)
                login.result = await start
        except Failure as error:
            failure = error
        except Exception:
            self._audit.bug("a login ended in a fault of brokerd's own", **login.held.about)
            failure = Failure(Code.INTERNAL, f"{grant}: the login failed by a fault of brokerd's own", grant)
        finally:
            if login.result is None:
                words = f"{grant}: the login ended: {login.why}; nothing has changed"
                login.failure = failure or Failure(login.code, words, grant)
                self._audit.warned("login failed", **login.held.about, uid=login.uid, reason=login.failure.message)
            login.prompt = None
            login.moved()

    async def _log_in(self, login: Login) -> dict[str, object]:
        held = login.held
        try:
            ended = await self._exchanger.login(held, login, login.hold)
        except SecretsUnreadable as error:
            raise Failure(Code.MISCONFIGURED, f"{held.name}: {error}", held.name) from None
        tokens = _tokens(held.name, ended.outcome)
        before = held.record.subject
        is_other = before is not None and before != tokens.subject
        if is_other or login.names_account:
            await self._confirm(login, tokens, ended.at, is_other=is_other)
        await login.hold()
        return await self._store(login, tokens, ended.at)

    async def _confirm(self, login: Login, tokens: Tokens, at: Moment, *, is_other: bool) -> None:
        """Say whose login it is. Without a yes, which a person has to give where somebody else logged in than the last
        time, nothing changes, and the tokens are given back. Raises Failure."""
        held, is_meant = login.held, False
        was, now = _shown(held.record.subject), _shown(tokens.subject)
        account = {} if tokens.subject is None else {"now": now}
        try:
            brought = await login.ask(Ask("confirm", {"was": was, "now": now}) if is_other else Ask("account", account))
            is_meant = (brought or {}).get("confirm", Secret("")).reveal() == "yes"
        finally:
            if not is_meant:
                with trio.CancelScope(shield=True):
                    await self._flights.settle(held, lambda record: revocations.came_late(record, tokens, at))
        if not is_meant:
            whose = f"{now}'s, not {was}'s," if is_other else f"{now}'s"
            words = f"{held.name}: the login was {whose} and was not confirmed; nothing has changed"
            raise Failure(Code.DENIED, words, held.name)

    async def _store(self, login: Login, tokens: Tokens, at: Moment) -> dict[str, object]:
        """Durable first, then said (law 2). A grant that was revoked while the person was busy stays so (law 10)."""
        held, jitter, revoked = login.held, self._entropy.fraction(), False

        def step(record: Record) -> Record:
            nonlocal revoked
            revoked = record.state is State.REVOKED and not login.was_revoked
            if revoked:
                return revocations.came_late(record, tokens, at)
            return records.granted(record, tokens, at, jitter, held.settings.asked)

        await self._flights.settle(held, step)
        if revoked or self._flights.grants.get(held.name) is not held:
            words = f"{held.name} was revoked or configured otherwise meanwhile; begin the login anew"
            raise Failure(Code.UNAVAILABLE, words, held.name)
        stored, generation = not held.unstored, held.record.generation
        who = {} if tokens.subject is None else {"subject": _shown(tokens.subject)}
        self._audit.said("login ended", **held.about, uid=login.uid, generation=generation, stored=stored, **who)
        lacks = tokens.access_token is not None and tokens.refresh_token is None
        return {
            "generation": generation,
            "stored": stored,
            "subject": who.get("subject"),
            "note": LACKING if lacks else None,
        }


def _tokens(grant: str, outcome: Outcome) -> Tokens:
    """What the login brought. Raises Failure."""
    match outcome:
        case Issued(tokens):
            return tokens
        case Rejected(reason):
            raise Failure(Code.DENIED, f"{grant}: {reason}; to try again: brokerctl login {grant}", grant)
        case Misconfigured(reason):
            raise Failure(Code.MISCONFIGURED, f"{grant}: {reason}; mend that, then: brokerctl login {grant}", grant)
        case RetryLater(reason):
            raise Failure(Code.UNAVAILABLE, f"{grant}: {reason}; to try again: brokerctl login {grant}", grant)
        case _:
            raise AssertionError("a login is never merely done")


def _shown(subject: str | None) -> str:
    """A provider's name for somebody, fit for terminals and logs."""
    if subject is None:
        return "(nobody knows)"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in subject)[:SHOWN]
