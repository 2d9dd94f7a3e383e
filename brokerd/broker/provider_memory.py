# What an exchange taught brokerd about its provider is stored: its breaker, and its metadata.
from __future__ import annotations

from brokerd.broker.provider import Provider
from brokerd.core.exchange.outcomes import Cause, Outcome, RetryLater
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.ports import Store
from brokerd.core.timing.moment import Moment

Known = tuple[Moment | None, Metadata | None]
UNASKED = (Cause.UNREACHABLE, Cause.UNANSWERED)  # the network of this host may be the reason


def known(provider: Provider) -> Known:
    return provider.breaker.shut_until, provider.metadata


async def remember(store: Store, provider: Provider, before: Known, outcome: Outcome) -> None:
    """What has changed since `before`. Raises StoreUnavailable."""
    shut_until, metadata = before
    if provider.breaker.shut_until != shut_until:
        await store.write_breaker(provider.name, provider.breaker)
        if not isinstance(outcome, RetryLater) or outcome.cause not in UNASKED:
            await store.share_breaker(provider.name, provider.breaker)
    if provider.metadata is not None and provider.metadata is not metadata:
        await store.write_metadata(provider.name, provider.metadata)
