# A real gRPC server and channel over TLS, with tokens of brokerd as call credentials.
from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
import trustme
from brokerd_client.auth.grpc import BrokerCredentials

from tests.unit.client.daemon import Daemon


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call with its `authorization`."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        sent = dict(details.invocation_metadata).get("authorization", "")
        return grpc.unary_unary_rpc_method_handler(lambda *_: sent.encode())


@pytest.fixture
def channel_to() -> Iterator[tuple[str, grpc.ChannelCredentials]]:
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    key, certificate = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Echo()])
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    yield f"localhost:{port}", grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    server.stop(None).wait()


def call(target: str, tls: grpc.ChannelCredentials, grant: str) -> bytes:
    tokens = grpc.metadata_call_credentials(BrokerCredentials(grant))
    with grpc.secure_channel(target, grpc.composite_channel_credentials(tls, tokens)) as channel:
        answer: bytes = channel.unary_unary("/test.Echo/Say")(b"", timeout=10)
        return answer


def test_a_call_has_the_token(daemon: Daemon, channel_to: tuple[str, grpc.ChannelCredentials]) -> None:
    assert call(*channel_to, "ix") == b"Bearer token-of-ix"


def test_a_call_without_a_token_fails_and_says_why(
    daemon: Daemon, channel_to: tuple[str, grpc.ChannelCredentials]
) -> None:
    with pytest.raises(grpc.RpcError, match="no grant nope"):
        call(*channel_to, "nope")
