# The laws (docs/laws.md) as checks that run all the while: on every token that is served, every request that leaves,
# every answer that comes, every write that becomes durable. They judge by what is true in the model world, and know of
# brokerd only what it serves, sends, stores and says of itself.
from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from brokerd.broker.live_grant import LiveGrant
from brokerd.core.audit import chain
from brokerd.core.grant.record import Record, refuses_password
from brokerd.core.grant.renewal import Operation
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.timing.moment import Moment
from brokerd.edge.audit.files import FOLDER, SERIES, numbered
from tests.stress.simulation.providers import DEADLINE, Provider, Reply
from tests.stress.simulation.schedule import GRANTS, NEEDS_A_PERSON

if TYPE_CHECKING:
    from brokerd.broker.key_management import Rotation
    from brokerd.core.ports import StoredRecord
    from tests.stress.simulation.life import Life
    from tests.stress.simulation.world import World

EPSILON = 0.02  # seconds; expiries are told rounded to hundredths
NEAR_END, NEAR_END_MOST = 0.1, 60.0  # law 3: what counts as near the end of a living access token
LIFETIME = 3_600.0  # seconds that a token is taken to live which names no lifetime
ABOUT = 1.0  # seconds by which brokerd may look at its clock later than the law does
DOUBTED = 900.0  # seconds until a password is sent again that may have been refused (law 7)
WINDOW = 60.0  # seconds over which requests are counted


@dataclass(frozen=True)
class Broken:
    """A law that did not hold: its name, what was seen, and when (trio's clock)."""

    law: str
    what: str
    at: float

    def __str__(self) -> str:
        return f"{self.law}, at {self.at:.2f}: {self.what}"


@dataclass
class Seen:
    """What is known of one grant. Times are the true ones."""

    in_flight: list[tuple[str, LiveGrant | None]] = field(default_factory=list)
    left: defaultdict[str | None, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    stirred: deque[float] = field(default_factory=deque)  # acts of people and crashes, which excuse a request
    invited: deque[float] = field(default_factory=deque)  # the same of Retry-After, each of which excuses one
    not_before: float = -inf  # Retry-After
    dead: dict[str, LiveGrant | None] = field(default_factory=dict)  # replaced or rejected, as this one heard
    rejected: set[str] = field(default_factory=set)  # once, while much of the access token's life was left
    doubtless: set[str] = field(default_factory=set)  # those of them whose access token had half of its life left
    overruled: set[str] = field(default_factory=set)  # those of them that a person wants tried at once
    sent: dict[str, float] = field(default_factory=dict)  # refresh tokens: when first, since they were known to live
    touched: dict[str, float] = field(default_factory=dict)  # those that may be used up: when first sent
    known: set[str] = field(default_factory=set)  # those that it was given and that nothing has ended
    imports: set[str] = field(default_factory=set)
    unheard: bool = False  # an answer with tokens was lost: what nobody can mend
    refused: set[str] = field(default_factory=set)  # passwords
    doubted: dict[str, tuple[float, str]] = field(default_factory=dict)  # passwords that may have been refused: when,
    # and as part of what; what a person has changed since is tried at once
    refused_early: set[str] = field(default_factory=set)  # those of them that were tried ahead of need
    revoked: str = ""  # "asked", "stored"
    asked: set[int] = field(default_factory=set)  # epochs of the revocations since the last import that were not left
    login_ends: bool = False  # the login under way was begun to end a revocation
    revoking: bool = False  # what is held may still change before the revocation is written: writes have their turns
    epoch: int = 0  # rises with each import and revocation
    family: int = 0  # of the last import that was said to have happened
    imported_by: LiveGrant | None = None
    holding: set[str] = field(default_factory=set)  # tokens held when it was last asked to be revoked
    dooming: set[str] = field(default_factory=set)  # those of revocations before that one
    doomed: set[str] = field(default_factory=set)  # those of a revocation that is durable

    def to_be_dead(self) -> set[str]:
        return self.doomed | self.dooming | self.holding


class Laws:
    """One for each simulation. The first law that is broken is kept in `verdict`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.verdict: Broken | None = None
        self.checked: Counter[str] = Counter()
        self.seen = {grant: Seen() for grant in world.schedule.setup.grants}
        self.durable: dict[str, Record] = {}
        self.held: dict[str, Record] = {}  # what the disk did not take and systemd held when the last process ended
        self.ever_durable: set[str] = set()  # token values
        self.is_restored = False  # since the last process ended
        self.skewed: set[str] = set()  # grants that were refused by another clock
        self.answered_revocations: Counter[str] = Counter()
        self.answered: set[str] = set()  # device codes
        self._due: dict[tuple[int, str, int, str], float] = {}

    def hold(self, law: str, holds: bool, what: str) -> None:
        self.checked[law] += 1
        if not holds and self.verdict is None:
            self.verdict = Broken(law, what, self.world.time())
            self.world.over.set()

    # -- what is served

    def served(
        self, life: Life, grant: str, token: AccessToken, min_ttl: float = 0.0, wanted: Target | None = None
    ) -> None:
        seen, held, value = self.seen[grant], life.broker.grants.get(grant), token.value.reveal()
        self.hold("law 15: nothing is served while brokerd is locked", not life.broker.locked, f"{grant}: {value}")
        self.hold("law 14: a grant that vanished serves nothing", held is not None, f"{grant}: {value}")
        truth = self.world.provider_of(grant).access[value]
        left = truth.expires - self.world.clock.true()
        issued, now = token.issued, self.world.clock.now()
        undated = not issued.trusted and issued.boot_id != now.boot_id
        self.hold(
            UNDATED if undated else "law 5: no expired token is served",
            left > -EPSILON,
            f"{grant}: {value} died {-left:.2f} s ago",
        )
        self.hold(
            "law 5: no token with less life than min_ttl is served",
            left >= min_ttl - EPSILON,
            f"{grant}: {value} lives {left:.2f} s, wanted {min_ttl:g}",
        )
        right = _is_own(truth.scope) if wanted is None else (truth.scope,) == wanted.scope
        self.hold(VARIANTS, right, f"{grant}: {value} was got for {truth.scope}, wanted {wanted}")
        self.hold("law 15: a grant serves its own tokens", truth.grant == grant, f"{grant}: {value} of {truth.grant}")
        own = {name: each.reveal() for name, each in token.fields.items()} == {"id": f"of {value}"}
        self.hold("a token is served with the fields of its own answer", own, f"{grant}: {value} with {token.fields}")
        self.hold("law 10: nothing revoked is served", not seen.revoked, f"{grant}: {value} after its revocation")
        self.hold(
            "law 2: durable before served",
            not truth.rotated or value in self.ever_durable or (held is not None and held.unstored),
            f"{grant}: {value} came with a new refresh token and is not stored",
        )
        self.hold(
            "law 8: nothing of another boot is served by an untrusted clock",
            now.trusted or token.lifetime is None or truth.boots == self.world.clock.boots,
            f"{grant}: {value} was issued in boot {truth.boots}",
        )

    # -- what leaves, and what comes

    def leaves(self, life: Life, grant: str, fields: dict[str, str], *, telling: bool) -> None:
        """A request's first byte leaves. `telling`: of a revocation."""
        seen, now = self.seen[grant], self.world.clock.true()
        self.skewed.discard(grant)  # whatever is said from now on is said of another answer
        others = [held for _, held in seen.in_flight if held is not life.broker.grants.get(grant)]
        self.hold(
            RETURNED if others else "law 1: one exchange per grant at a time",
            not seen.in_flight,
            f"{grant}: {fields} while {[what for what, _ in seen.in_flight]} is under way",
        )
        token = fields.get("refresh_token")
        if telling:
            return
        self.hold("law 10: nothing revoked is renewed", seen.revoked != "stored", f"{grant}: {fields}")
        if token is not None:
            seen.sent.setdefault(token, now)
        elif (password := fields.get("password")) is not None:
            self.hold(
                REFUSED_EARLY if password in seen.refused_early else "law 7: a refused password is not sent again",
                password not in seen.refused,
                f"{grant}: {password} was refused before, at {now:.2f}",
            )
            when, asked = seen.doubted.get(password, (-inf, ""))
            ago, is_changed = now - when, asked != asked_for(fields, life.broker.grants.get(grant))
            self.hold(
                "law 7: what may be a refused password waits a quarter of an hour",
                ago >= DOUBTED - EPSILON or is_changed,
                f"{grant}: {password} was answered {ago:.2f} s ago",
            )
            if is_changed:  # by a person, who may change it back as well
                seen.doubted.pop(password, None)

    def crowded(self, provider: Provider, busy: int) -> None:
        most = provider.setup.concurrency
        self.hold("law 7: a provider's concurrency limit holds", busy <= most, f"{provider.name}: {busy} of {most}")

    def ends(self, life: Life, grant: str, fields: dict[str, str], *, cancelled: bool) -> None:
        """A request that was under way has ended."""
        well = not cancelled or life.dead or (life.stopping and "refresh_token" not in fields)
        self.hold("law 1: who goes away cancels no exchange", well, f"{grant}: {fields}")

    def gives_up(self, grant: str, fields: dict[str, str], patience: float) -> None:
        """brokerd no longer waits for an answer."""
        at_stake = fields.keys() & {"refresh_token", "device_code"}
        self.hold("law 3: minutes are waited for a new refresh token", not at_stake, f"{grant}: {patience:g} s")

    def said(self, text: str) -> None:
        """brokerd told people something."""
        self.hold("law 11: no secret is said", "test-only-" not in text, text)

    def explained(self, grant: str, reason: str) -> None:
        """What is said of a grant's failure."""
        if grant in self.skewed and "invalid_client" in reason:
            self.skewed.discard(grant)
            self.hold("law 8: a refusal by another clock says so", "clock" in reason, f"{grant}: {reason}")

    def decided(self, life: Life, provider: Provider, grant: str, fields: dict[str, str]) -> None:
        """brokerd has decided to send a request, whether it can leave or not."""
        seen, now = self.seen[grant], self.world.clock.true()
        token, scope = fields.get("refresh_token"), fields.get("scope")
        if token is not None:
            self._spends(life, provider, grant, token)
        held = self.world.life and self.world.life.broker.grants.get(grant)
        early = held is not None and held.record.rotation_retry is not None
        self.hold(
            "law 7: Retry-After to an early issue holds for callers"
            if early
            else "law 7: Retry-After is never undercut",
            now >= seen.not_before - EPSILON,
            f"{grant}: {seen.not_before - now:.2f} s too early",
        )
        left = seen.left[None if _is_own(scope) else scope]
        left.append(now)
        while left[0] < now - WINDOW:
            left.popleft()
        while seen.stirred and seen.stirred[0] < now - 1.5 * WINDOW:
            seen.stirred.popleft()
        while seen.invited and seen.invited[0] < now - WINDOW:
            seen.invited.popleft()
        setup = self.world.provider_of(grant).setup
        lifetime, kept = setup.lifetime, not setup.rotates and setup.refresh_lifetime is not None
        most = 12 + WINDOW / (lifetime / 3) + WINDOW / (0.6 * lifetime) + 8 * len(seen.stirred) + len(seen.invited)
        law = "law 6: a refresh token that is never replaced causes no loop" if kept else "law 6: requests are bounded"
        self.hold(law, len(left) <= most, f"{grant}: {len(left)} in a minute for {scope}")

    def _spends(self, life: Life, provider: Provider, grant: str, token: str) -> None:
        seen, clock = self.seen[grant], self.world.clock
        ours, stored = life.broker.grants.get(grant), self.durable.get(grant)
        stale = ours is not None and stored is not None and not ours.unstored and ours.stored != stored.generation
        self.hold("law 4: what was replaced meanwhile is not sent", not stale, f"{grant}: {token}, of an older record")
        heard_by = seen.dead.get(token)
        self.hold(
            RETURNED, heard_by is None or heard_by is ours, f"{grant}: {token}, which its other self knows is dead"
        )
        self.hold(
            "law 3: no replaced or rejected refresh token is sent again", token not in seen.dead, f"{grant}: {token}"
        )
        if token in seen.rejected - seen.overruled:
            left = self._living(life.broker.grants.get(grant), clock.now())
            self.hold(
                CONFIRMED, left <= EPSILON, f"{grant}: {token}, {left:.2f} s before the living token nears its end"
            )
        if token in seen.touched:
            ago = clock.true() - seen.touched[token]
            held = life.broker.grants.get(grant)
            left = self._living(held, clock.now())
            late = provider.setup.grace > 0 and ago <= provider.setup.grace + 2 * DEADLINE
            self.hold(
                "law 3: reuse_grace counts from the sending" if late else "law 3: an interrupted refresh token waits",
                ago <= provider.setup.grace + EPSILON or left <= EPSILON,
                f"{grant}: {token}, first sent {ago:.2f} s ago, {left:.2f} s before the living token nears its end",
            )
        self.hold("law 15: a copied store spends nothing", life.store.adopted, f"{grant}: {token}")
        gone = stored is not None and stored.state is State.REVOKED
        self.hold("law 10: nothing is spent once a revocation is stored", not gone, f"{grant}: {token}")
        moved = ours is not None and not ours.unstored and _refresh_token(ours.record) != token
        self.hold("law 4: what was replaced meanwhile is not sent", gone or not moved, f"{grant}: {token}")
        holds = _refresh_token(stored) == token
        self.hold("law 2: only what is stored is spent", holds, f"{grant}: {token}")
        self.hold(
            "law 2: no journal, no send",
            stored is not None and life.store.journalled(grant) == stored.generation,
            f"{grant}: {token} of generation {stored and stored.generation}",
        )

    def _living(self, held: LiveGrant | None, now: Moment) -> float:
        """Seconds until the held access token nears its end, as far as any clock can tell."""
        token = held.record.access_token if held is not None else None
        if token is None or token.lifetime is None:
            return 0.0
        margin = min(NEAR_END_MOST, NEAR_END * token.lifetime)
        if token.issued.boot_id == now.boot_id:
            return token.issued.boot + token.lifetime - margin - now.boot
        dated = token.issued.trusted and now.trusted  # otherwise nobody knows that it lives, and it is not served
        return token.issued.wall + token.lifetime - margin - now.wall if dated else 0.0

    def _confirms(self, seen: Seen, grant: str, token: str, held: LiveGrant | None) -> bool:
        """Whether that rejection is to be confirmed by one more try (law 4)."""
        access = held.record.access_token if held is not None else None
        if GRANTS[grant] not in NEEDS_A_PERSON or token in seen.touched or token in seen.rejected or access is None:
            return False
        if held is None or held.record.uncertain is not None:  # a downscoped token that was refused is uncertain too
            return False
        now, lifetime = self.world.clock.now(), LIFETIME if access.lifetime is None else access.lifetime
        same = access.issued.boot_id == now.boot_id
        if not same and not (now.trusted and access.issued.trusted):
            return False
        left = access.issued.boot + lifetime - now.boot if same else access.issued.wall + lifetime - now.wall
        if left > lifetime / 2:
            seen.doubtless.add(token)
        if abs(left - NEAR_END * lifetime) <= ABOUT:  # brokerd, which looks a little later, may end the login
            seen.known.discard(token)
        return left > NEAR_END * lifetime - ABOUT

    def heard(self, grant: str, fields: dict[str, str], reply: Reply, epoch: int, held: LiveGrant | None) -> None:
        """An answer in the provider's own form has come."""
        seen, token = self.seen[grant], fields.get("refresh_token")
        confirms = token is not None and reply.rejected and self._confirms(seen, grant, token, held)
        if reply.refused:
            seen.refused.add(fields["password"])
            if held is not None and held.record.requested != held.settings.requested:
                seen.refused_early.add(fields["password"])
        if token is not None and (reply.status == 200 or reply.rejected):
            seen.touched.pop(token, None)
            if not reply.rejected:  # the rejection before was a stray one
                seen.rejected.discard(token)
            if not (reply.issued or reply.rejected):  # it is known to live: what may happen to it now begins anew
                seen.sent.pop(token, None)
        elif token is not None:  # the client or the scope was refused, before it was looked at
            self.unused(grant, fields)
        if token is not None and confirms:
            seen.rejected.add(token)
            seen.sent.pop(token, None)  # this answer is known; what may happen to it now begins anew
        elif token is not None and (reply.issued or reply.rejected):
            seen.dead[token] = held
            seen.known.discard(token)
        if reply.issued and epoch == seen.epoch:
            seen.known.add(reply.issued)
            seen.unheard = False

    def brought(self, grant: str, reply: Reply, epoch: int) -> None:
        """A refresh token came in an answer that says of itself that it failed: it is kept (law 3)."""
        if reply.issued and epoch == self.seen[grant].epoch:
            self.seen[grant].known.add(reply.issued)

    def doubted(self, grant: str, password: str, asked: str) -> None:
        """That may have been a refusal of the password, in a form of the server's own."""
        self.seen[grant].doubted[password] = self.world.clock.true(), asked

    def unused(self, grant: str, fields: dict[str, str]) -> None:
        """The provider refused before it looked: the token is what it was before."""
        seen, token = self.seen[grant], fields.get("refresh_token", "")
        if token not in seen.touched:
            seen.sent.pop(token, None)

    def touched(self, grant: str, fields: dict[str, str], reply: Reply | None, epoch: int) -> None:
        """A request ended without an answer that says what became of its token."""
        seen, token = self.seen[grant], fields.get("refresh_token")
        if token is not None and token not in seen.dead:
            seen.touched.setdefault(token, seen.sent[token])
        if reply is not None and reply.issued and epoch == seen.epoch:
            seen.unheard = True

    def asked_to_wait(self, grant: str, seconds: float, epoch: int) -> None:
        if epoch == self.seen[grant].epoch:
            self.seen[grant].not_before = self.world.clock.true() + seconds
        self.seen[grant].invited.append(self.world.clock.true() + seconds)

    # -- what people do

    def by_hand(self, grant: str) -> None:
        """An operator acts on the grant: he may override what held it back."""
        seen = self.seen[grant]
        seen.stirred.append(self.world.clock.true())
        seen.not_before = -inf
        seen.refused.clear()
        seen.doubted.clear()
        seen.overruled |= seen.rejected

    def revoking(self, grant: str, record: Record) -> None:
        seen = self.seen[grant]
        self.by_hand(grant)
        seen.revoked, seen.epoch = seen.revoked or "asked", seen.epoch + 1
        seen.asked.add(seen.epoch)
        if not seen.revoking or record.state is State.REVOKED:  # else what the one before will end is not settled yet
            seen.dooming |= seen.holding
        seen.revoking, seen.login_ends = True, False
        seen.known.clear()
        seen.holding = _tokens(record)

    def left(self, grant: str, asked: set[int], epoch: int) -> None:
        """Who asked for the revocation `epoch` went away before it was made. `asked`: the others of then."""
        seen = self.seen[grant]
        asked.discard(epoch)
        if not asked and asked is seen.asked:
            seen.revoked = seen.revoked if seen.revoked == "stored" else ""
            seen.holding, seen.revoking = set(), False

    def importing(self, grant: str, token: str) -> None:
        seen = self.seen[grant]
        self.by_hand(grant)
        seen.revoked, seen.epoch, seen.asked = "", seen.epoch + 1, set()
        seen.unheard = False
        seen.imports.add(token)

    def imported(self, grant: str, token: str, held: LiveGrant) -> None:
        provider = self.world.provider_of(grant)
        self.seen[grant].imported_by = held
        self.seen[grant].known = {token}
        self.seen[grant].family = provider.refresh[token].family

    def watch_logins(self, life: Life) -> None:
        """See what each login of a life makes of its grant, at the moment at which it does."""
        change_when_idle = life.broker.single_flight.change_when_idle

        async def settled(held: LiveGrant, step: Callable[[Record], Record | None], *ended: Any) -> None:
            granted: list[str] = []

            def seen_step(record: Record) -> Record | None:
                changed = step(record)
                if changed is not None and changed.refresh_token not in (None, record.refresh_token):
                    granted[:] = [_refresh_token(changed) or ""]
                    self._logged_in(held.name, granted[0], record)
                return changed

            await change_when_idle(held, seen_step, *ended)
            if granted:
                self.imported(held.name, granted[0], held)

        life.broker.single_flight.change_when_idle = settled  # type: ignore[method-assign]

    def _logged_in(self, grant: str, token: str, record: Record) -> None:
        seen = self.seen[grant]
        ended = record.state is State.REVOKED and not seen.login_ends
        self.hold("law 10: a login that was begun before a revocation does not end it", not ended, f"{grant}: {token}")
        self.importing(grant, token)
        # Of a login and an import the one that was stored last counts, whichever the provider gave out first.
        seen.family = min(seen.family, self.world.provider_of(grant).refresh[token].family)

    def login_begun(self, grant: str, record: Record) -> None:
        self.seen[grant].login_ends = record.state is State.REVOKED

    # -- what is durable, and what a crash leaves

    def found(self, records: dict[str, Record]) -> None:
        """What a life finds in the store at its start."""
        lost = [
            grant for grant in self.durable.keys() | records.keys() if records.get(grant) != self.durable.get(grant)
        ]
        self.hold("law 2: what was durable is there at the next start", not lost, f"{sorted(lost)}")

    def recovered(self, life: Life, stored: Iterable[StoredRecord]) -> None:
        """What a life begins with, once systemd gave back what it held."""
        free = self.is_restored and life.store.adopted
        self.hold("law 15: a restored store is not adopted by itself", not free, "it is")
        self.is_restored = False
        generations = {row.grant: row.record.generation for row in stored if row.record is not None}
        lost = [grant for grant, record in self.held.items() if generations.get(grant, -1) < record.generation]
        self.hold("law 2: what systemd holds is there at the next start", not lost, f"{sorted(lost)}")

    def restored(self, records: dict[str, Record]) -> None:
        """A backup was put back: whatever came after it nobody knows any more, brokerd least of all."""
        self.durable, self.held, self.is_restored = records, {}, True
        for grant, seen in self.seen.items():
            record = records.get(grant)
            held = _refresh_token(record)
            for of in (seen.dead, seen.touched, seen.sent):
                of.pop(held, None)  # type: ignore[attr-defined]
            if not _is_rejected(record):
                seen.rejected.discard(held or "")
            seen.known = {held} if held is not None else set()
            seen.unheard, seen.not_before, seen.epoch = False, -inf, seen.epoch + 1
            seen.revoked = "stored" if record is not None and record.state is State.REVOKED else ""
            seen.asked = set()
            seen.doomed = _doomed(record)
            seen.refused.clear()
            seen.doubted.clear()
            seen.refused_early.clear()
            seen.family = self.world.provider_of(grant).refresh[held].family if held is not None else 0

    def logged(self, life: Life) -> None:
        """The audit log as it lies there at an orderly end: a whole chain, with every revocation that was answered."""
        if life.store.is_locked:  # the key of the chain is locked as well: the next orderly end looks at all of it
            return
        entries: list[dict[str, object]] = []
        memory, folder = life.store.remembered(), self.world.folder / FOLDER
        for series in SERIES:
            there = numbered(folder, series) if folder.exists() else []  # the first line makes it
            files = [(number, path.name, path.read_bytes()) for number, path in there]
            found = chain.verify(files, series, memory.key, memory.head(series))
            self.hold("law 9: the audit log is a chain without a gap", not found.findings, str(found.findings[:2]))
            entries += [chain.read(line) or {} for _, _, content in files for line in content.splitlines()]
        said = Counter(str(each.get("grant")) for each in entries if each.get("event") == "revoked")
        lost = [grant for grant, times in self.answered_revocations.items() if said[grant] < times]
        self.hold("law 10: a revocation that was answered is in the audit log", not lost, f"{lost}")

    def rotated(self, life: Life, before: bytes, done: Rotation) -> None:
        closed = not done.rewrapped or not life.store.opens(before)
        self.hold("law 15: after a rotation the key before opens nothing", closed, "it does")
        self.hold("law 15: a rotation loses nothing", not done.damaged, f"{done}")

    def committed(self, life: Life) -> None:
        if life.store.is_locked:  # whatever is sealed stays as it is
            return
        before, self.durable = self.durable, life.store.records()
        lost = before.keys() - self.durable.keys()
        self.hold("law 15: what is sealed can be opened", not lost, f"{sorted(lost)}")
        for grant, record in self.durable.items():
            seen, provider = self.seen[grant], self.world.provider_of(grant)
            same = _same(record, before.get(grant))
            self.ever_durable |= _tokens(record)
            seen.doomed |= _doomed(record)
            refresh = _refresh_token(record)
            if record.state is State.REVOKED:
                seen.known.clear()
                if not same:  # else it lies there from an earlier revocation, and this one is still to be written
                    seen.doomed |= seen.dooming | seen.holding
            elif refresh in seen.imports - seen.dead.keys() and not same:
                # An import counts from here on, whether its caller is still there or not. One that still lies here
                # while a newer one is in memory only counts no more.
                seen.known.add(refresh)
            if refresh is not None and GRANTS[grant] in NEEDS_A_PERSON and not same:
                family = provider.refresh[refresh].family
                other = seen.imported_by not in (None, life.broker.grants.get(grant))
                self.hold(
                    RETURNED if other else "law 4: an outcome of an older generation moves nothing",
                    family >= seen.family,
                    f"{grant}: family {family} after the import of {seen.family}",
                )
            old = _refresh_token(before.get(grant))
            once = old is not None and old in seen.doubtless & seen.rejected - seen.overruled and old not in seen.dead
            gone = once and refresh is None and record.state is not State.REVOKED
            self.hold("law 4: one rejection alone ends no refresh token", not gone, f"{grant} gave up {old}")
            if record.state is State.NEEDS_LOGIN and grant in before and before[grant].state is not State.NEEDS_LOGIN:
                self._unended(grant, seen)

    def _unended(self, grant: str, seen: Seen) -> None:
        provider = self.world.provider_of(grant)
        living = [token for token in seen.known if provider.valid(token)]
        self.hold("law 12: no living refresh token is given up", not living, f"{grant} gave up {living}")

    def ended(self, durable: dict[str, Record], *, power: bool = False) -> None:
        """All that was in memory only is gone: what was heard and not written was never heard. `durable` has what
        systemd holds as well. `power`: the machine lost its power, and so what systemd held."""
        held_before = self.held if power else {}
        self.held = {grant: record for grant, record in durable.items() if record is not self.durable.get(grant)}
        for grant, seen in self.seen.items():
            record = durable.get(grant)
            held = _refresh_token(record)
            seen.in_flight.clear()
            seen.dead, seen.imported_by = dict.fromkeys(seen.dead), None
            seen.stirred.append(self.world.clock.true())
            if held is not None and held in seen.dead:
                seen.dead.pop(held)
                seen.touched.setdefault(held, seen.sent.get(held, self.world.clock.true()))
            if held in seen.rejected and not _is_rejected(record):
                seen.rejected.discard(held)
                seen.touched.setdefault(held, seen.sent.get(held, self.world.clock.true()))
            if lost := {token for token in seen.known if token != held}:
                seen.known -= lost
                seen.unheard = seen.unheard or (bool(lost - seen.imports) and held in seen.touched)
            if held in seen.imports - seen.dead.keys():
                seen.known.add(held)  # a newer import may have been in memory only
            if record is None or not refuses_password(record):
                seen.refused.clear()
            if record is None or record.doubt is None:
                seen.doubted.clear()
            if record is None or not self._remembers(record, seen.not_before):
                seen.not_before = -inf
            if record is not None and record.state is State.REVOKED:
                seen.revoked = "stored"
            elif seen.revoked == "asked" or grant in held_before:
                seen.revoked = ""
            seen.asked = set()
            seen.holding, seen.dooming, seen.revoking = set(), set(), False
            if seen.family and held is not None:
                seen.family = min(seen.family, self.world.provider_of(grant).refresh[held].family)
            elif held is None:
                seen.family = 0

    def _remembers(self, record: Record, not_before: float) -> bool:
        """Whether it is durable that nothing is to be sent before that time. What holds an early issue back only may
        be of another answer."""
        retry, now = record.retry, self.world.clock.now()
        if retry is None or retry.boot_id != now.boot_id:
            return False
        return self.world.clock.true() + retry.boot - now.boot > not_before - 1.0

    def rebooted(self) -> None:
        for seen in self.seen.values():
            seen.not_before = -inf  # what is left of it is known by the wall clock alone

    # -- looking around, at every instant at which something could come in between

    def observe(self, life: Life) -> None:
        now = self.world.clock.now()
        if life.broker.locked:  # the protocol's methods refuse, whatever is there already
            return
        for grant, held in list(life.broker.grants.items()):
            if (token := life.broker.cached(grant)) is not None:
                self.served(life, grant, token)
            for each in held.record.downscoped:
                if (token := held.serves_downscoped(each.target, now)) is not None:
                    self.served(life, grant, token, wanted=each.target)
            seen = self.seen[grant]
            seen.revoking = seen.revoking and held.record.state is not State.REVOKED
            if seen.revoking:
                seen.holding = _tokens(held.record)  # what was being written when it was asked comes first
            if held.running is None and not held.blocked:
                self._marks(life, grant, held)
                self._steady(life, grant, held, now)

    def _marks(self, life: Life, grant: str, held: LiveGrant) -> None:
        record, seen = held.record, self.seen[grant]
        if record.refresh_token is None or record.state is State.REVOKED:
            return
        value = record.refresh_token.value.reveal()
        self.hold(
            "law 3: an interruption is said",
            value not in seen.touched or record.interrupted is not None,
            f"{grant}: {value} was sent and nobody knows what became of it",
        )
        self.hold("law 2: unstored is said", held.unstored or value in self.ever_durable, f"{grant}: {value}")

    def _steady(self, life: Life, grant: str, held: LiveGrant, now: Moment) -> None:
        """A renewal that nothing disturbs stays when it is (law 6); it is another where a refresh token has died."""
        record = held.record
        if record.state is not State.READY or record.retry or record.rotation_retry or record.interrupted:
            return
        plan = held.plan(now, for_caller=False)
        if plan is None or plan.operation is Operation.REVOKE:  # the provider is told of another token first
            return
        if plan.delay <= 2.0 or held.provider.breaker.shut_until or plan.early:
            return
        due = now.boot + plan.delay
        renewal = f"{plan.operation} {plan.target} of {record.requested}"
        before = self._due.setdefault((life.number, grant, record.generation, renewal), due)
        self.hold(
            "law 6: jitter is drawn once",
            abs(due - before) < 1.0,
            f"{grant}: due at {before:.2f}, then at {due:.2f}",
        )


def _same(record: Record, before: Record | None) -> bool:
    return before is not None and record.generation == before.generation


def _doomed(record: Record | None) -> set[str]:
    """Tokens that the provider is still to be told of."""
    found = (
        each.access_token or each.refresh_token for each in (record.pending_revocations if record is not None else ())
    )
    return {token.value.reveal() for token in found if token is not None}


def _is_own(scope: str | None) -> bool:
    """Whether it is what a grant asks its own tokens for, not a variant."""
    return scope is None or " " in scope


def _tokens(record: Record) -> set[str]:
    held = (record.access_token, record.refresh_token, *(each.access_token for each in record.downscoped))
    return {token.value.reveal() for token in held if token is not None}


def asked_for(fields: dict[str, str], held: LiveGrant | None) -> str:
    """The scope that the grant is configured with, as a request shows it; of a variant's request nothing shows it."""
    scope = fields.get("scope")
    return str(scope) if held is None or _is_own(scope) else " ".join(held.settings.settings["scope"])  # type: ignore[arg-type]


def _is_rejected(record: Record | None) -> bool:
    token = record.refresh_token if record is not None else None
    return token is not None and token.rejected is not None


def _refresh_token(record: Record | None) -> str | None:
    return record.refresh_token.value.reveal() if record is not None and record.refresh_token is not None else None


AHEAD = "law 6: a token that can be had is there before it is asked for"
UNDATED = "law 8: what an untrusted clock dated is not believed in another boot"
CONFIRMED = "law 4: a rejection is confirmed near the end of the living token"
REFUSED_EARLY = "law 7: a password that was refused ahead of need is remembered"
BEGUN = "law 4: the state is looked at again once the credentials are read"
VARIANTS = "law 1: a variant is what was asked for, and never the grant's own token"
RETURNED = "law 1: a grant that vanished and returned is still one grant"
