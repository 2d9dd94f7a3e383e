# When the certificates in a file end.
from __future__ import annotations

from pathlib import Path

LONGEST = 4 << 20  # bytes


def ends(path: str, is_first: bool) -> float | None:
    """The end of the first certificate in the file, or of that one which ends last, in Unix seconds; None: the file
    cannot be read. Who uses the file says so. Blocking."""
    from cryptography import x509  # when it is needed: edge/http/tls.py

    try:
        with Path(path).open("rb") as file:
            found = x509.load_pem_x509_certificates(file.read(LONGEST))
    except (OSError, ValueError):
        return None
    times = [each.not_valid_after_utc.timestamp() for each in found]
    return times[0] if is_first else max(times)
