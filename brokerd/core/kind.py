# What kind of event a line of the log tells: the ids by which a journal is searched (docs/journal.md), which never
# change. Pure; audit.py and its callers word each line.
from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """MESSAGE_ID (systemd.journal-fields(7)): 128 bits, drawn once with systemd-id128 new."""

    RENEWED = "31ebad23b08f4e13adbe20e2d7373e46"
    NOT_RENEWED = "5d230de9c6e74748ab9f29ed6ba45730"
    NEEDS_LOGIN = "00187200560c4a4ca8ccc6b58a3cfbb3"
    INTERRUPTED = "5b58d61db1884122a54e2fd70d3e3f43"
    LOGIN_DONE = "d3ba166d81074f3c8b513238259e3045"
    LOGIN_FAILED = "41c9c213cbc546f3866ba061fde967ae"
    LOGIN_ALARM = "37dcc6c6c7ff4e64ba54e8c08fc2e152"
    REVOKED = "cfe1e9b8a5394d03926b33332d01932b"
    TOLD = "97a75ad7c55d40cea2c8df821cd1a146"
    NOT_TOLD = "527e3839eea647deac96db981b33bf29"
    LOST = "b9b9c441cb75489393bea4a8b360eaf5"
    HELD = "bd4a98b09705420bb739f73f8910ee06"
    RECOVERED = "7fb0b60099bf41669e1b3a4e37498ebd"
    DENIED = "3dfe8b7008c24f10803a31c64e17b843"
    STORE_TROUBLE = "33996285f40e4c9a8613ae3150c607e0"
    STORE_BACK = "4c34a26d131940a592f72c1ff057ac45"
    AUDIT_TROUBLE = "1271dfadaaa14836a0aff5e54f514999"
    AUDIT_BACK = "4407cc1f7bc149738f9449d03752e420"
    NOT_STARTED = "0a58dbe9aff04932a683c989121cf7d3"
    NOT_RELOADED = "1452450b6f52473b93a64a8318424fb9"
    RELOADED = "efb91982f4c74906b27501ee529bd3b0"
    READY = "b8ed68b5afd94fe0b6a1b8d4298b48af"
    STOPPED = "1657f0a296be4afab082f873694c573e"
    BUG = "ac057b7ee43d452693bf55202995ce49"


def kind_of(fields: Mapping[str, object]) -> Kind | None:
    """Of an event with its fields, `level` among them; None where nobody has a reason to look for it."""
    match fields:
        case {"level": "error"}:
            return Kind.BUG
        case {"event": "renewal failed", "state": "needs_login"}:
            return Kind.NEEDS_LOGIN
        case {"event": str(words)}:
            return KINDS.get(words)
    return None


def exchange_event(operation: str, outcome: str) -> str:
    """What happened, in words for people: the event of an exchange that ended so."""
    succeeded, failed = EXCHANGES.get(operation, EXCHANGES["renew"])
    return succeeded if outcome in ("issued", "done") else failed


# By operation: how an exchange is named that succeeded, and one that failed.
EXCHANGES = {
    "renew": ("renewed", "renewal failed"),
    "issue": ("renewed", "renewal failed"),
    "revoke": ("provider told of the revocation", "provider not told of the revocation"),
    "verify": ("verified", "verification failed"),  # nothing follows from it
}
# What is said of each, word for word.
KINDS = {
    "renewed": Kind.RENEWED,
    "renewal failed": Kind.NOT_RENEWED,
    "provider told of the revocation": Kind.TOLD,
    "provider not told of the revocation": Kind.NOT_TOLD,
    "a login is needed": Kind.NEEDS_LOGIN,
    "an exchange was interrupted": Kind.INTERRUPTED,
    "login ended": Kind.LOGIN_DONE,
    "refresh token imported": Kind.LOGIN_DONE,
    "login failed": Kind.LOGIN_FAILED,
    "LOGIN ALARM": Kind.LOGIN_ALARM,
    "revoked": Kind.REVOKED,
    "its newest state could not be stored and is lost": Kind.LOST,
    "its newest state could not be stored; systemd holds it over a restart, not over a stop": Kind.HELD,
    "what could not be stored before this start was held by systemd": Kind.RECOVERED,
    "denied": Kind.DENIED,
    "the store cannot be written": Kind.STORE_TROUBLE,
    "the store can be written again": Kind.STORE_BACK,
    "THE AUDIT LOG CANNOT BE WRITTEN": Kind.AUDIT_TROUBLE,
    "the audit log can be written again": Kind.AUDIT_BACK,
    "the configuration was not reloaded; nothing has changed": Kind.NOT_RELOADED,
    "reloaded": Kind.RELOADED,
    "ready": Kind.READY,
    "stopped": Kind.STOPPED,
}
