# When the certificates in a file end, as log and metrics say it.
from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from brokerd.edge.files.certificates import ends

DAMAGED = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_the_own_certificate_counts_or_the_last_authority(tmp_path: Path) -> None:
    one, other = trustme.CA(), trustme.CA()
    chain = [one.issue_cert("client").cert_chain_pems[0].bytes(), other.cert_pem.bytes()]
    (tmp_path / "f").write_bytes(b"".join(chain))
    times = [ends(str(tmp_path / "f"), first) for first in (True, False)]
    for number, each in enumerate(chain):
        (tmp_path / f"{number}").write_bytes(each)
    single = [ends(str(tmp_path / f"{number}"), True) for number in (0, 1)]
    assert None not in single
    assert times == [single[0], max(filter(None, single))]


@pytest.mark.parametrize("content", [b"", b"no certificate", DAMAGED])
def test_a_file_without_certificates_is_for_others_to_report(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    assert ends(str(tmp_path / "f"), True) is None
