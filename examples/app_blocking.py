# Calls an API with a token from brokerd: blocking Python. Usage: app_blocking.py GRANT URL
# It has no client secret and does not care about expiry: it asks for a token whenever it needs one.
from __future__ import annotations

import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from brokerd_client import Broker, BrokerError, Token, Unavailable


def call(broker: Broker, grant: str, url: str) -> bytes:
    """The API's answer. If the API refuses the token before its expiry, report that once and use another one."""
    token = broker.get(grant)
    try:
        return fetch(url, token)
    except HTTPError as error:
        if error.code != 401:
            raise
    return fetch(url, broker.get(grant, refused=token.value))


def fetch(url: str, token: Token) -> bytes:
    with urlopen(Request(url, headers=token.header), timeout=30) as response:  # any HTTP client will do
        answer: bytes = response.read()
        return answer


def main() -> None:
    _, grant, url = sys.argv
    try:
        with Broker() as broker:  # one for the whole program: threads may share it, and forked processes too
            print(call(broker, grant, url).decode())
    except Unavailable as error:  # the provider is down, and the last token has expired
        sys.exit(f"no token now; try again in {error.retry_after or 10:.0f} s: {error}")
    except BrokerError as error:  # a person must do something: the message says what
        sys.exit(f"no token: {error}")
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main()
