# What release_tasks.py uses of brokerd, under today's names. Releases up to 0.2.0 had other modules, classes and
# fields.
# ruff: noqa: F401, I001
try:
    from brokerd.core.exchange.server_metadata import Metadata
    from brokerd.core.grant.record import (
        AccessToken,
        DownscopedToken,
        PendingRevocation,
        Record,
        RefreshToken,
        UnrevokedToken,
    )
    from brokerd.core.grant.state import State
    from brokerd.core.grant.target import Target
    from brokerd.core.sealing import Bound
    from brokerd.core.secret import Secret
    from brokerd.core.timing.breaker import Breaker
    from brokerd.core.timing.moment import Moment
    from brokerd.edge.store.store import SqliteStore
    from brokerd.edge.system.entropy import SystemEntropy

    FIELDS = {}
except ImportError:
    from brokerd.core.breaker import Breaker
    from brokerd.core.envelope import Bound
    from brokerd.core.grant import State
    from brokerd.core.metadata import Metadata
    from brokerd.core.moment import Moment
    from brokerd.core.record import AccessToken, Doomed as PendingRevocation, Record, RefreshToken
    from brokerd.core.record import Survivor as UnrevokedToken, Variant as DownscopedToken
    from brokerd.core.secret import Secret
    from brokerd.core.wanted import Wanted as Target
    from brokerd.edge.entropy import SystemEntropy
    from brokerd.edge.store import Store as SqliteStore

    FIELDS = {  # today's name: that release's
        "downscoped": "variants",
        "lifetime_warning": "odd",
        "pending_revocations": "doomed",
        "previous_refresh": "earlier",
        "proven_password": "proven",
        "requested": "asked",
        "retry_after": "asked_until",
        "revocation_failures": "untold",
        "revocation_retry": "telling",
        "revoked_locally": "local",
        "superseded": "outlived",
        "target": "wanted",
        "tried_credentials": "instead",
        "unrevoked": "survivors",
    }

KEK, MACHINE = b"k" * 32, "machine-1"
TODAYS = {old: name for name, old in FIELDS.items()}


def record(name: str, **fields: object) -> Record:
    """A record of the release, its fields named as today."""
    return Record(name, **{FIELDS.get(each, each): value for each, value in fields.items()})
