# Calls an API with a token from brokerd: blocking Python. Usage: app_blocking.py GRANT URL
# No client secret, no expiry, no refreshing in here: a token is asked for whenever one is needed.
from __future__ import annotations

import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from brokerd_client import Broker, BrokerError, Token, Unavailable


def call(broker: Broker, grant: str, url: str) -> bytes:
    """The API's answer. A token that the API refuses before its time is reported once, and another one used."""
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
        with Broker() as broker:  # one for the whole program: it is safe between threads and after a fork
            print(call(broker, grant, url).decode())
    except Unavailable as error:  # the provider is down, and the last token has expired
        sys.exit(f"no token now; try again in {error.retry_after or 10:.0f} s: {error}")
    except BrokerError as error:  # a person is needed: the message says for what
        sys.exit(f"no token: {error}")
    except OSError as error:
        sys.exit(f"{url}: {error}")


if __name__ == "__main__":
    main()
