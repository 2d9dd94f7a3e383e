# Calls several APIs at once with tokens from brokerd: trio. Usage: app_trio.py GRANT URL [GRANT URL]…
from __future__ import annotations

import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import trio
from brokerd_client import BrokerError, Token, Unavailable
from brokerd_client.on_trio import Broker


async def call(broker: Broker, grant: str, url: str) -> bytes:
    """The API's answer. If the API refuses the token before its expiry, report that once and use another one."""
    token = await broker.get(grant)
    try:
        return await fetch(url, token)
    except HTTPError as error:
        if error.code != 401:
            raise
    return await fetch(url, await broker.get(grant, refused=token.value))


async def fetch(url: str, token: Token) -> bytes:
    """With urllib in a thread, so that the example needs no other library. With httpx: `client.get(url, headers=…)`."""

    def work() -> bytes:
        with urlopen(Request(url, headers=token.header), timeout=30) as response:
            answer: bytes = response.read()
            return answer

    return await trio.to_thread.run_sync(work)


async def report(broker: Broker, grant: str, url: str, failed: list[str]) -> None:
    try:
        print(grant, (await call(broker, grant, url)).decode())
        return
    except Unavailable as error:  # the provider is down, and the last token has expired
        print(f"{grant}: no token now; try again in {error.retry_after or 10:.0f} s: {error}", file=sys.stderr)
    except BrokerError as error:  # a person must do something: the message says what
        print(f"{grant}: no token: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{grant}: {url}: {error}", file=sys.stderr)
    failed.append(grant)


async def main() -> None:
    failed: list[str] = []
    async with Broker() as broker, trio.open_nursery() as nursery:  # all tasks share one connection
        for grant, url in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
            nursery.start_soon(report, broker, grant, url, failed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    trio.run(main)
