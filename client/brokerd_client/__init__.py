"""Fetch access tokens from brokerd. On trio: brokerd_client.on_trio; on asyncio: brokerd_client.on_asyncio."""

from brokerd_client.blocking import Broker
from brokerd_client.errors import (
    BadRequest,
    BrokerError,
    Denied,
    Internal,
    Limit,
    Locked,
    Misconfigured,
    NeedsLogin,
    NoDaemon,
    NotPermitted,
    ProtocolError,
    Revoked,
    Unavailable,
    UnknownGrant,
)
from brokerd_client.messages import Gone, Token

__version__ = "0.3.0.dev0"

__all__ = [
    "BadRequest",
    "Broker",
    "BrokerError",
    "Denied",
    "Gone",
    "Internal",
    "Limit",
    "Locked",
    "Misconfigured",
    "NeedsLogin",
    "NoDaemon",
    "NotPermitted",
    "ProtocolError",
    "Revoked",
    "Token",
    "Unavailable",
    "UnknownGrant",
]
