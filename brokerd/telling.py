# Telling the provider of a revocation (law 10): one exchange for each token, as often as it takes. What that makes of
# the record is core/revocation.py's matter, when it is done the flights'.
from __future__ import annotations

from brokerd.core import revocation as revocations
from brokerd.core.backoff import LONGEST_AHEAD, retry_delay
from brokerd.core.exchange import Exchange
from brokerd.core.moment import Moment
from brokerd.core.outcome import Done, Misconfigured, Outcome, Rejected, RetryLater, Unsupported
from brokerd.core.record import Doomed, Record, usable
from brokerd.core.renewal import Operation
from brokerd.exchanger import Exchanger, SecretsUnreadable
from brokerd.held import HeldGrant


async def tell_revoked(exchanger: Exchanger, held: HeldGrant) -> None:
    """Tell the provider of every token that is still to be revoked, one exchange each (law 10)."""
    for token in held.record.doomed:
        if not await _tell(exchanger, held, token):
            return


async def spare(exchanger: Exchanger, held: HeldGrant) -> None:
    """Let live on, at once, what the provider has no way to be told of."""
    for token in held.record.doomed:
        if _revocation(exchanger, held, token) is None and not _ends_with_another(exchanger, held, token):
            await _tell(exchanger, held, token)


def _ends_with_another(exchanger: Exchanger, held: HeldGrant, token: Doomed) -> bool:
    """Whether a token that the provider cannot be told of ends with one that it is still to be told of."""
    dialect, now = held.settings.provider.dialect, exchanger.clock.now()
    return any(
        each.kind != token.kind
        and dialect.ends_both(each)
        and usable(each.access_token or each.refresh_token, now)
        and _revocation(exchanger, held, each) is not None
        for each in held.record.doomed
    )


def _revocation(exchanger: Exchanger, held: HeldGrant, token: Doomed) -> Exchange | None:
    return held.settings.provider.dialect.revoke(held.doomed_view(exchanger.clock.now()), token)


async def _tell(exchanger: Exchanger, held: HeldGrant, token: Doomed) -> bool:
    """Tell of one token; whether the next one can follow."""
    if token not in held.record.doomed:  # an operator wants it told no more
        return True
    now = exchanger.clock.now()
    if not usable(token.access_token or token.refresh_token, now):
        await held.change(exchanger.store, lambda record: revocations.told(record, token))
        return True
    if _revocation(exchanger, held, token) is None and _ends_with_another(exchanger, held, token):
        return True
    outcome: Outcome = Unsupported("the provider has no revocation for this token")
    try:
        if _revocation(exchanger, held, token) is not None:
            await exchanger.read_credentials(held, again=False)
        if (exchange := _revocation(exchanger, held, token)) is not None:
            outcome = (await exchanger.run(held, exchange)).outcome
    except SecretsUnreadable as error:
        outcome = Misconfigured(str(error))
    now, jitter = exchanger.clock.now(), exchanger.entropy.fraction()
    match outcome:
        case RetryLater(reason, _, after):
            delay = retry_delay(held.record.untold + 1, after, jitter)
        case Misconfigured(reason, _, after):
            delay = retry_delay(held.record.untold + 1, after, jitter, LONGEST_AHEAD)
        case Rejected(reason):
            delay = retry_delay(held.record.untold + 1, None, jitter, LONGEST_AHEAD)
        case _:
            also = _also_ended(exchanger, held, token) if isinstance(outcome, Done) and outcome.ends_both else ()
            await held.change(exchanger.store, lambda record: _told(record, token, outcome, now, also))
            exchanger.report(held, Operation.REVOKE, outcome)
            return True
    await held.change(exchanger.store, lambda record: _untold(record, token, reason, now, delay))
    exchanger.report(held, Operation.REVOKE, outcome)
    return False


def _also_ended(exchanger: Exchanger, held: HeldGrant, token: Doomed) -> tuple[Doomed, ...]:
    """Those that ended with this one. Where the provider can be told of them, it is all the same."""
    others = (each for each in held.record.doomed if each.kind != token.kind)
    return tuple(each for each in others if _revocation(exchanger, held, each) is None)


def _told(record: Record, token: Doomed, outcome: Outcome, now: Moment, also: tuple[Doomed, ...]) -> Record | None:
    """None where an operator wanted it told no more meanwhile: it counts as a survivor already."""
    if token not in record.doomed:
        return None
    if isinstance(outcome, Unsupported):
        return revocations.survived(record, token, now)
    for each in (token, *also):
        record = revocations.told(record, each)
    return record


def _untold(record: Record, token: Doomed, reason: str, now: Moment, delay: float) -> Record | None:
    return revocations.untold(record, reason, now, delay) if token in record.doomed else None
