"""The CA of one test server, its certificate, and the keys and certificates that its clients show."""

from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def make_certificates(folder: Path) -> None:
    """Fills `folder` unless it is full: ca.pem, server.{pem,key,chain.pem} for localhost and 127.0.0.1; client and
    wrongclient (signed by the CA) and selfclient (not) with .pem and .key; pkjwt, pkjwt-rsa and pkjwt-ed with .key and
    .pub."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / ".certificates"
    if done.exists():
        return
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    server = ca.issue_cert("localhost", "127.0.0.1")
    _write(server, folder, "server")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.chain.pem")
    _write(ca.issue_cert("mtls-client.test"), folder, "client")
    _write(ca.issue_cert("someone-else.test"), folder, "wrongclient")
    # a CA that certifies itself alone
    alone = trustme.CA()
    alone.cert_pem.write_to_path(folder / "selfclient.pem")
    alone.private_key_pem.write_to_path(folder / "selfclient.key")
    _write_pair(ec.generate_private_key(ec.SECP256R1()), folder, "pkjwt")
    _write_pair(rsa.generate_private_key(65537, 2048), folder, "pkjwt-rsa")
    _write_pair(ed25519.Ed25519PrivateKey.generate(), folder, "pkjwt-ed")
    done.touch()


def _write(certificate: trustme.LeafCert, folder: Path, name: str) -> None:
    certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    certificate.private_key_pem.write_to_path(folder / f"{name}.key")


def _write_pair(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, folder: Path, name: str
) -> None:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.key").touch(mode=0o600)
    (folder / f"{name}.key").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)
