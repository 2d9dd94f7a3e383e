# A token server that costs as little as possible: OAuth over TLS, every request gets a new token. Run as
# `python -m bench.issuer PORT CERTIFICATE`; it prints a line when it listens.
from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
LIFETIME = 86_400  # seconds of a token: longer than a benchmark
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n"


class Connection(asyncio.Protocol):
    _said = b""
    _transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._said += data
        while (end := self._said.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self._said[:end])
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._said) < whole:
                return
            self._said = self._said[whole:]
            token = {"access_token": os.urandom(24).hex(), "token_type": "Bearer", "expires_in": LIFETIME}
            body = json.dumps(token).encode()
            self._transport.write(HEAD % len(body) + body)


async def main(port: int, certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, ssl=context, backlog=500)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
