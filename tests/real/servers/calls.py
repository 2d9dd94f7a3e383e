"""One HTTP exchange by the standard library, so that what the servers say is not seen through brokerd's own client."""

import base64
import http.client
import json as json_module
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

TIMEOUT = 20.0  # seconds, for connecting and for each read


@dataclass(frozen=True)
class Answer:
    """What came back; the names in `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        return json_module.loads(self.text)


def send(
    url: str,
    ca_file: Path,
    method: str,
    *,
    form: Mapping[str, str] | None,
    json: object,
    headers: Mapping[str, str] | None,
    basic: tuple[str, str] | None,
    certificate: tuple[Path, Path] | None,
) -> Answer:
    """Raises OSError when the server is not there. See realservers.Server.send for the arguments."""
    parts = urlsplit(url)
    every = {"Accept": "application/json", "Connection": "close", **(headers or {})}
    body = None
    if form is not None:
        body, every["Content-Type"] = urlencode(form), "application/x-www-form-urlencoded"
    if json is not None:
        body, every["Content-Type"] = json_module.dumps(json), "application/json"
    if basic is not None:
        pair = ":".join(map(quote_plus, basic))  # RFC 6749 2.3.1: form-encoded, then joined
        every["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    tls = ssl.create_default_context(cafile=ca_file)
    if certificate is not None:
        tls.load_cert_chain(*certificate)
    assert parts.hostname is not None
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=tls, timeout=TIMEOUT)
    try:
        connection.request(method, parts.path or "/", body, every)
        response = connection.getresponse()
        text = response.read().decode()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)
    finally:
        connection.close()
