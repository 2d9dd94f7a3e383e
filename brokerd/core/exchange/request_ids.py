# The ids of a request: ours, which a caller may choose and the provider gets in a header, and the provider's own, which
# its support asks for. Pure.
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from brokerd.core.exchange.redaction import SHORTEST_SECRET, reason
from brokerd.core.ports import Entropy
from brokerd.core.secret import Secret

BYTES = 8  # of one that brokerd makes
HEADER = "X-Request-ID"  # for the provider, unless its settings name another header or none
FORM = re.compile(r"[A-Za-z0-9._:-]{1,64}")  # of a caller's: it stands in logs and in a header of HTTP
FORM_IN_WORDS = "1 to 64 characters of A-Z a-z 0-9 . _ : -"
OF_PROVIDERS = (  # headers of answers, in lower case
    *("x-request-id", "x-ms-request-id", "x-amzn-requestid", "x-amz-request-id", "x-okta-request-id"),
    *("x-github-request-id", "paypal-debug-id", "atl-traceid", "request-id", "x-correlation-id", "cf-ray"),
)
FORM_OF_PROVIDERS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=+/-]{0,63}")


def new(entropy: Entropy) -> str:
    """An id for an exchange whose caller gave none."""
    return entropy.bytes(BYTES).hex()


def of_provider(headers: Mapping[str, str], ours: str, secrets: Iterable[Secret]) -> str | None:
    """The provider's own id in the headers of its answer. None: there is none, it only repeats ours, or it may show a
    secret."""
    for name in OF_PROVIDERS:
        found = headers.get(name, "").strip()
        if found and found != ours:
            return found if FORM_OF_PROVIDERS.fullmatch(found) and not shows(found, secrets) else None
    return None


def shows(found: str, secrets: Iterable[Secret]) -> bool:
    """Whether the text has one of the secrets in it, is a part of one, or looks like a token."""
    secrets = tuple(secrets)
    is_part = len(found) >= SHORTEST_SECRET and any(found in secret.reveal() for secret in secrets)
    return is_part or reason(found, secrets) != found
