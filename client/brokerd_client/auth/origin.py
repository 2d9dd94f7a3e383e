# The origin of a URL: where a token may go. It goes nowhere else, whatever a redirect says.
from __future__ import annotations

from urllib.parse import urlsplit

PORTS = {"https": 443, "http": 80}


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port. Raises ValueError where the URL has none."""
    parts = urlsplit(str(url))
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"expected an http or https URL, found the scheme {parts.scheme!r}")
    return parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]
