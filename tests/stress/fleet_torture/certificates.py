# A CA for each side of the test, and the certificates of its servers and clients.
from __future__ import annotations

from pathlib import Path

import trustme


def make(folder: Path, servers: dict[str, list[str]], clients: list[str]) -> None:
    """ca.pem, and NAME.pem with NAME.key for each."""
    folder.mkdir(mode=0o700)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, addresses in {**servers, **{each: [f"{each}.test"] for each in clients}}.items():
        made = authority.issue_cert(*addresses)
        (folder / f"{name}.key").touch(0o600)
        made.private_key_pem.write_to_path(folder / f"{name}.key")
        (folder / f"{name}.pem").write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
