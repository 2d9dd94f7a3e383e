# The auth class for requests: a token of brokerd on each request, and one more try with another token after a 401.
from __future__ import annotations

from typing import Any
from weakref import finalize

from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.models import PreparedRequest, Response

from brokerd_client.auth.origin import origin_of
from brokerd_client.blocking import Broker
from brokerd_client.messages import Token


class BrokerAuth(AuthBase):
    """`requests.get(url, auth=BrokerAuth("ix-prod"))`.

    `broker`: one that the program has already. The token goes to the origin of the request alone, never to another
    one that a redirect names. Raises the errors of brokerd_client.errors.
    """

    def __init__(self, grant: str, broker: Broker | None = None, **get: Any) -> None:
        """`get`: further arguments of Broker.get, such as min_ttl or scope."""
        self._grant = grant
        if broker is None:
            broker = Broker()
            finalize(self, broker.close)  # with this object, also where a cycle of references holds it
        self._broker = broker
        self._get = get

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        attempt = _Attempt(self, request)
        request.register_hook("response", attempt.answered)
        return request

    def token(self, refused: str | None = None) -> Token:
        return self._broker.get(self._grant, refused=refused, **self._get)


class _Attempt:
    """One request, its redirects, and the one more try."""

    def __init__(self, auth: BrokerAuth, request: PreparedRequest) -> None:
        self._auth = auth
        self._origin = origin_of(str(request.url))
        self._token = auth.token()
        self._tried = False
        request.headers.update(self._token.header)
        try:
            self._start = request.body.tell()  # type: ignore[union-attr]
        except (AttributeError, OSError):
            self._start = None

    def answered(self, response: Response, **settings: Any) -> Response:
        request = response.request
        if response.is_redirect:
            target = requests_target(response)
            if target != self._origin:  # requests removes Authorization itself, and no other header
                for name in self._token.header:
                    request.headers.pop(name, None)
        if response.status_code != 401 or self._tried or origin_of(str(request.url)) != self._origin:
            return response
        if any(request.headers.get(name) != value for name, value in self._token.header.items()):
            return response
        body = request.body
        if body is not None and not isinstance(body, (str, bytes)):
            if self._start is None:  # a generator was read: it cannot be sent again
                return response
            body.seek(self._start)  # type: ignore[union-attr]
        self._tried = True
        response.content  # noqa: B018 - read to its end, so that the connection can be used again
        response.close()
        self._token = self._auth.token(refused=self._token.value)
        again = request.copy()
        cookies: Any = again._cookies
        extract_cookies_to_jar(cookies, request, response.raw)
        again.prepare_cookies(cookies)
        again.headers.update(self._token.header)
        found: Response = response.connection.send(again, **settings)
        found.history.append(response)
        found.request = again
        return found


def requests_target(response: Response) -> tuple[str, str, int] | None:
    """The origin that a redirect names. None: it names none."""
    from urllib.parse import urljoin

    try:
        return origin_of(urljoin(str(response.url), response.headers["location"]))
    except (KeyError, ValueError):
        return None
