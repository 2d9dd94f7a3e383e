# Tells the provider of revocations (law 10): one exchange for each token, as often as it takes. single_flight.py
# decides when; core/grant/revocation.py computes what each answer does to the record.
from __future__ import annotations

from brokerd.broker.exchanges import ExchangeRunner, SecretsUnreadable
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Conversation
from brokerd.core.exchange.outcomes import Done, Misconfigured, Outcome, Rejected, RetryLater, Unsupported
from brokerd.core.exchange.steps import Exchange
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.record import PendingRevocation, Record
from brokerd.core.grant.renewal import Operation
from brokerd.core.grant.tokens import usable
from brokerd.core.timing.backoff import LONGEST_AHEAD, retry_delay
from brokerd.core.timing.moment import Moment


async def revoke_pending(runner: ExchangeRunner, grant: LiveGrant) -> None:
    """Tell the provider of every token that is still to be revoked, one exchange each (law 10)."""
    for token in grant.record.pending_revocations:
        if not await _revoke(runner, grant, token):
            return


async def settle_unrevocable(runner: ExchangeRunner, grant: LiveGrant) -> None:
    """Settle at once the tokens that the provider has no way to revoke: they live until they expire."""
    for token in grant.record.pending_revocations:
        if _revocation(runner, grant, token) is None and not _ends_with_another(runner, grant, token):
            await _revoke(runner, grant, token)


def _ends_with_another(runner: ExchangeRunner, grant: LiveGrant, token: PendingRevocation) -> bool:
    """Whether a token that has no revocation of its own ends with another one that is still to be revoked."""
    dialect, now = grant.dialect, runner.clock.now()
    return any(
        each.kind != token.kind
        and dialect.ends_both(each)
        and usable(each.access_token or each.refresh_token, now)
        and _revocation(runner, grant, each) is not None
        for each in grant.record.pending_revocations
    )


def _revocation(runner: ExchangeRunner, grant: LiveGrant, token: PendingRevocation) -> Exchange | None:
    return grant.dialect.revoke(grant.revocation_view(runner.clock.now()), token)


async def _revoke(runner: ExchangeRunner, grant: LiveGrant, token: PendingRevocation) -> bool:
    """Revoke one token at the provider. Returns whether the next one can follow."""
    if token not in grant.record.pending_revocations:  # an operator dropped it: revoke --local
        return True
    now = runner.clock.now()
    if not usable(token.access_token or token.refresh_token, now):
        await grant.change(runner.store, lambda record: revocations.provider_told(record, token))
        return True
    if _revocation(runner, grant, token) is None and _ends_with_another(runner, grant, token):
        return True
    ended = Conversation(Unsupported("the provider has no revocation for this token"), now)
    try:
        if _revocation(runner, grant, token) is not None:
            await runner.read_credentials(grant, again=False)
        if (exchange := _revocation(runner, grant, token)) is not None:
            ended = await runner.run(grant, exchange)
    except SecretsUnreadable as error:
        ended = Conversation(error.outcome, now)
    outcome, row = ended.outcome, runner.row(Operation.REVOKE, ended)
    now, jitter, failures = runner.clock.now(), runner.entropy.fraction(), grant.record.revocation_failures + 1
    match outcome:
        case RetryLater(reason, _, after):
            delay = retry_delay(failures, after, jitter)
        case Misconfigured(reason, _, after):
            delay = retry_delay(failures, after, jitter, LONGEST_AHEAD)
        case Rejected(reason):
            delay = retry_delay(failures, None, jitter, LONGEST_AHEAD)
        case _:
            also = _also_ended(runner, grant, token) if isinstance(outcome, Done) and outcome.ends_both else ()
            await grant.change(runner.store, lambda record: _told(record, token, outcome, now, also), row)
            runner.report(grant, Operation.REVOKE, outcome)
            return True
    await grant.change(runner.store, lambda record: _failed(record, token, reason, now, delay), row)
    runner.report(grant, Operation.REVOKE, outcome)
    return False


def _also_ended(runner: ExchangeRunner, grant: LiveGrant, token: PendingRevocation) -> tuple[PendingRevocation, ...]:
    """The other tokens that ended with this one, except those that get an exchange of their own."""
    others = (each for each in grant.record.pending_revocations if each.kind != token.kind)
    return tuple(each for each in others if _revocation(runner, grant, each) is None)


def _told(
    record: Record, token: PendingRevocation, outcome: Outcome, now: Moment, also: tuple[PendingRevocation, ...]
) -> Record | None:
    """None: an operator dropped it meanwhile, and it counts as unrevoked already."""
    if token not in record.pending_revocations:
        return None
    if isinstance(outcome, Unsupported):
        return revocations.not_revocable(record, token, now)
    for each in (token, *also):
        record = revocations.provider_told(record, each)
    return record


def _failed(record: Record, token: PendingRevocation, reason: str, now: Moment, delay: float) -> Record | None:
    return revocations.revocation_failed(record, reason, now, delay) if token in record.pending_revocations else None
