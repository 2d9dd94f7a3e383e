# TLS to providers: which certificates are trusted and presented, the handshake, and its errors in words for operators.
# No secret is passed to this file, so its errors contain none.
from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from weakref import WeakValueDictionary

import trio

from brokerd.core.ports import TransportError
from brokerd.edge.http.dial import Endpoint, os_reason

Fingerprint = tuple[tuple[int, int, int], ...]

SHOWN_NAMES = 3  # of a certificate for another host; the server chose these names
SHOWN_LENGTH = 80  # characters of each name


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Without ca_file the system's root certificates are trusted, else only ca_file. cert_file may hold the
    key too."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class TlsContext:
    """The SSL context made from some files. A thread makes it at the first use, and again after the files changed."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._built: tuple[Fingerprint, ssl.SSLContext] | None = None
        # One thread: files on a disk that does not answer block no more than one, and shared files are read once.
        self._limiter = trio.CapacityLimiter(1)

    async def current(self) -> ssl.SSLContext:
        """For the next connection: certificate files are replaced while a daemon runs. Raises TransportError."""
        return await trio.to_thread.run_sync(self._current, limiter=self._limiter, abandon_on_cancel=True)

    def _current(self) -> ssl.SSLContext:
        fingerprint = _fingerprint(self._files)
        if self._built is None or self._built[0] != fingerprint:
            from cryptography import x509  # noqa: F401 - here, in a thread: the first handshake will need it

            self._built = (fingerprint, build(self._files))
        return self._built[1]


def shared_context(files: TlsFiles) -> TlsContext:
    """The context for these files. Providers with the same files share one; most providers name none."""
    found = _shared.get(files)
    if found is None:
        found = _shared[files] = TlsContext(files)
    return found


def build(files: TlsFiles) -> ssl.SSLContext:
    """Blocking. Raises TransportError if a file cannot be used."""
    # create_default_context is not used: it obeys SSLKEYLOGFILE, and differs between versions of Python.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Older releases of Python set this option (Debian 12 has one). An attacker who cuts a connection could then make a
    # cut answer look complete.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if files.ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(cafile=files.ca_file)
        except OSError as error:
            raise _unusable("ca_file", files.ca_file, error, "holds no certificate in PEM form") from None
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file may name an intermediate authority
    if files.cert_file is not None:
        _present(context, files.cert_file, files.key_file)
    elif files.key_file is not None:
        raise TransportError("key_file needs cert_file as well", sent=False)
    return context


def _present(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    context.post_handshake_auth = True  # a server that wants a certificate for some paths only asks after the handshake
    for name, path in (("cert_file", cert_file), ("key_file", key_file)):
        try:
            if path is not None:
                path.open("rb").close()  # load_cert_chain does not say which of the two it could not read
        except OSError as error:
            raise _unusable(name, path, error, "") from None
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_passphrase)
    except OSError as error:
        both = f"{cert_file} and {key_file}" if key_file else f"{cert_file} (certificate and key)"
        raise _unusable("cert_file", both, error, "are not a certificate and its key in PEM form") from None
    except _EncryptedKeyError:
        reason = f"key_file {key_file or cert_file}: the key is encrypted; brokerd needs it without a passphrase"
        raise TransportError(reason, sent=False) from None


class _EncryptedKeyError(Exception):
    pass


def _no_passphrase() -> NoReturn:
    # Without this, OpenSSL would ask for the passphrase on the terminal.
    raise _EncryptedKeyError


def _unusable(name: str, path: object, error: OSError, otherwise: str) -> TransportError:
    if not isinstance(error, ssl.SSLError):
        return TransportError(f"{name} {path}: {os_reason(error)}", sent=False)
    if error.reason == "KEY_VALUES_MISMATCH":
        otherwise = "the key does not belong to the certificate"
    return TransportError(f"{name} {path}: {otherwise}", sent=False)


def _fingerprint(files: TlsFiles) -> Fingerprint:
    roots = ssl.get_default_verify_paths()
    paths = [files.ca_file, files.cert_file, files.key_file]
    if files.ca_file is None:
        paths += [Path(path) for path in (roots.cafile, roots.capath) if path]
    seen = []
    for path in paths:
        try:
            stat = path.stat() if path else None
        except OSError:
            stat = None  # build reports what is wrong with it
        seen.append((stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else (0, 0, 0))
    return tuple(seen)


class UntrustedError(Exception):
    """The server's certificate was refused. `code`: the error of OpenSSL (X509_V_ERR_...)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


async def handshake(
    stream: trio.abc.Stream, context: ssl.SSLContext, endpoint: Endpoint
) -> trio.SSLStream[trio.abc.Stream]:
    """Raises UntrustedError for a bad certificate, else TransportError."""
    name = endpoint.host.removesuffix(".").encode("ascii")
    # https_compatible=False: an end without close_notify is an error. Otherwise a body without a length that was cut
    # would pass for a complete one.
    secured = trio.SSLStream(stream, context, server_hostname=name)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UntrustedError(cause.verify_code, cause.verify_message) from None
        raise TransportError(f"{endpoint}: TLS handshake: {broken_reason(error)}", sent=False) from None
    return secured


def broken_reason(error: trio.BrokenResourceError) -> str:
    """Why a stream broke: the error of TLS or of the system behind the error of trio."""
    return reason_of(error.__cause__)


def reason_of(cause: BaseException | None) -> str:
    """Why a socket broke: the error of TLS or of the system in words."""
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLSyscallError):
        return "connection closed"
    if isinstance(cause, ssl.SSLError):
        said = cause.reason or "the TLS session broke"
        return REASONS.get(said, said.replace("_", " ").lower())
    return os_reason(cause) if isinstance(cause, OSError) else "connection closed"


def expiry(stream: trio.abc.Stream) -> float | None:
    """When the server's certificate expires, in Unix seconds; None without TLS, or if that cannot be read."""
    der = stream.getpeercert(binary_form=True) if isinstance(stream, trio.SSLStream) else None
    from cryptography import x509  # slow to import, and of no use without TLS

    try:
        return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp() if der else None
    except Exception:  # OpenSSL could read the certificate, and trusts it; this only tells people when it ends
        return None


def unverified_context() -> ssl.SSLContext:
    """Trusts every certificate. Only to fetch one that was already refused: no request is sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def untrusted_reason(error: UntrustedError, host: str, certificate: bytes | None, now: float) -> str:
    """Why the certificate (DER, if it could be fetched) is not trusted, and the remedy. `now` is Unix time."""
    if error.code in UNKNOWN_AUTHORITY:
        return "the certificate is signed by an unknown authority; name it with ca_file"
    try:
        told = _from_certificate(error.code, host, certificate, now) if certificate else None
    except Exception:  # the certificate may be hostile, and this only chooses better words
        told = None
    return told or FALLBACKS.get(error.code) or f"the certificate is not accepted: {error.message[:SHOWN_LENGTH]}"


def _from_certificate(code: int, host: str, der: bytes, now: float) -> str | None:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    today = datetime.datetime.fromtimestamp(now, datetime.UTC)
    if code == EXPIRED and certificate.not_valid_after_utc < today:
        return f"the certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if code == NOT_YET_VALID and certificate.not_valid_before_utc > today:
        return f"the certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}; is the clock right?"
    if code not in OTHER_HOST:
        return None
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    shown = ", ".join(ascii(name)[1:-1][:SHOWN_LENGTH] for name in known[:SHOWN_NAMES]).replace(";", ",")
    more = ", …" if len(known) > SHOWN_NAMES else ""
    return f"the certificate is for {shown}{more}, not {host}"


_shared: WeakValueDictionary[TlsFiles, TlsContext] = WeakValueDictionary()

# OpenSSL's X509_V_ERR_..., x509_vfy.h
NOT_YET_VALID = 9
EXPIRED = 10
OTHER_HOST = (62, 64)  # a name, an address
UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)  # no issuer found, self-signed, self-signed in the chain, ...

FALLBACKS = {
    NOT_YET_VALID: "a certificate is not valid yet; is the clock right?",
    EXPIRED: "a certificate of the chain has expired",
    62: "the certificate is for another host",
    64: "the certificate is for another address",
}

REASONS = {
    "UNEXPECTED_EOF_WHILE_READING": "connection closed",  # later releases of Python: SSLEOFError
    "WRONG_VERSION_NUMBER": "it does not speak TLS; is this a port for http://?",
    "PACKET_LENGTH_TOO_LONG": "it does not speak TLS; is this a port for http://?",
    "RECORD_LAYER_FAILURE": "it does not speak TLS; is this a port for http://?",
    "HTTP_REQUEST": "it does not speak TLS; is this a port for http://?",
    "UNSUPPORTED_PROTOCOL": "it speaks nothing newer than TLS 1.1",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks nothing newer than TLS 1.1",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server refuses: no cipher in common, or it wants a certificate (cert_file)",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a client certificate; name one with cert_file",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not know the authority of our client certificate (cert_file)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server refuses our client certificate (cert_file)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our client certificate (cert_file) has expired, says the server",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our client certificate (cert_file) is revoked, says the server",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server refuses our client certificate (cert_file)",
    "TLSV1_UNRECOGNIZED_NAME": "the server does not know this host name",
    "TLSV1_ALERT_INTERNAL_ERROR": "the server has an internal error",
}
