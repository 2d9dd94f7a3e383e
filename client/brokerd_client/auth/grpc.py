# Call credentials for gRPC: a token of brokerd on each call.
from __future__ import annotations

from typing import Any
from weakref import finalize

import grpc

from brokerd_client.blocking import Broker
from brokerd_client.errors import BrokerError


class BrokerCredentials(grpc.AuthMetadataPlugin):  # type: ignore[misc]
    """`grpc.metadata_call_credentials(BrokerCredentials("ix-prod"))`, together with channel credentials of TLS.

    gRPC asks for it in a thread of its own; it has no second try after UNAUTHENTICATED. `broker`: one that the
    program has already.
    """

    def __init__(self, grant: str, broker: Broker | None = None, **get: Any) -> None:
        """`get`: further arguments of Broker.get, such as min_ttl or scope."""
        self._grant = grant
        if broker is None:
            broker = Broker()
            finalize(self, broker.close)  # with this object, also where a cycle of references holds it
        self._broker = broker
        self._get = get

    def __call__(self, _: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            header = self._broker.get(self._grant, **self._get).header
        except BrokerError as error:
            callback((), error)
        else:
            callback(tuple((name.lower(), value) for name, value in header.items()), None)
