# Shared tokens (docs/shared-token.md): memory in which this process reads a grant's token without asking the daemon.
# What is not there, or not certain, is for `get` over the socket. Imported only when a grant was asked for often.
from __future__ import annotations

import os
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_CTRUNC, SCM_RIGHTS, SOL_SOCKET, socket
from _thread import allocate_lock
from binascii import crc32
from fcntl import fcntl
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap
from struct import Struct
from time import CLOCK_BOOTTIME, clock_gettime, monotonic, sleep, time

from msgpack import unpackb

from brokerd_client.address import BUSY_PAUSE, connect, find_socket
from brokerd_client.client_protocol import GETS, READ_SIZE, ClientProtocol, Lost, unanswered
from brokerd_client.errors import BrokerError, ProtocolError
from brokerd_client.messages import Token, read_token
from brokerd_client.request import ClientRequest
from brokerd_client.wire import read_result

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from typing import Any

PAUSE = 100  # gets over the socket until a shared token is asked for again, if there was none to have
WITHIN = 2.0  # seconds for asking
SIZE = 64 * 1024
MAGIC = b"brokerd\x01"
BEAT, SEQUENCE = 1, 3  # their places among the numbers of 8 bytes
CHECKSUM, CONTENT = 16, 24  # at which bytes they begin; the sequence belongs to the content
HEAD = Struct("=QIIIIQdd")  # sequence, state, bytes of the value, bytes of the rest, 0, generation, expiry, lifetime
TOKEN, NONE, CLOSED = 1, 2, 3  # states
BEAT_LASTS = 1.0  # seconds: a daemon that has not said for so long that the content is right may be dead
TRIES = 100  # looks at a content that is being written
F_GET_SEALS, SEALED = 1034, 0x0002 | 0x0004  # F_SEAL_SHRINK, F_SEAL_GROW: to read it can never fail
MADV_WIPEONFORK = 18  # since Linux 4.14: a child finds zeros


class SharedTokenReaders:
    """The shared tokens of one Broker. All of them end with one connection. All threads may use it at once: while one
    of them asks for a shared token, the others get theirs over the socket.

    `gets`: how many gets of each grant went over the socket."""

    def __init__(self, path: str | None, gets: dict[str, int]) -> None:
        self._path = path
        self._gets = gets
        self._begin()

    def _begin(self) -> None:
        self._process = own_process()
        self._asking = allocate_lock()
        self._tokens: dict[str, SharedTokenReader] = {}
        self._connection: _Connection | None = None

    def get(self, grant: str, min_ttl: float) -> Token | None:
        """The token, if it can be read here now."""
        shared = self._tokens.get(grant)
        if shared is None or _process[0] != self._process:
            return None
        return shared.read(min_ttl) if min_ttl else shared.read()

    def refuse(self, grant: str, value: str) -> None:
        """An API refused that token. The next get must not find it here, even if brokerd is about to write another."""
        if (shared := self._tokens.get(grant)) is not None:
            shared.refuse(value)

    def claim(self, grant: str) -> bool:
        """A get went over the socket. Returns whether the caller must `ask` now."""
        if own_process() != self._process:  # after a fork: what the parent has, is the parent's
            self._begin()
        if (shared := self._tokens.get(grant)) is not None:
            if shared.is_over:
                del self._tokens[grant]
                self._gets[grant] = 0
            return False
        return self._asking.acquire(False)

    def ask(self, grant: str) -> None:
        """Ask for a shared token, once `claim` said so. Takes at most WITHIN seconds, and raises nothing."""
        self._gets[grant] = GETS - PAUSE
        try:
            self._tokens[grant] = self._asked(grant)
            self._gets[grant] = 0
        except (OSError, ValueError, BrokerError, Lost) as error:
            if not self._tokens or not isinstance(error, BrokerError) or isinstance(error, ProtocolError):
                self._forget()
        finally:
            self._asking.release()

    def _asked(self, grant: str) -> SharedTokenReader:
        if self._connection is not None:
            try:
                return self._connection.share(grant)
            except (OSError, Lost):  # the daemon was restarted
                self._forget()
        self._connection = _Connection(self._path or find_socket())
        return self._connection.share(grant)

    def close(self) -> None:
        if own_process() == self._process:
            self._forget()

    def _forget(self) -> None:
        self._tokens = {}
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class SharedTokenReader:
    """One shared token. While nothing changes, a read costs no system call and copies no token."""

    __slots__ = ("_found", "_grant", "_memory", "_numbers", "_times")

    def __init__(self, memory: mmap, grant: str) -> None:
        self._memory = memory
        self._grant = grant
        if memory[: len(MAGIC)] != MAGIC:
            raise ProtocolError("expected the memory of a shared token, in a layout that this version knows")
        view = memoryview(memory)
        self._numbers, self._times = view.cast("Q"), view.cast("d")
        self._found = _Found(-1, NONE, None, 0.0, 0.0)  # replaced as a whole, so that threads never see a part

    def read(self, min_ttl: float = 0.0) -> Token | None:
        """The token, if it lives longer than `min_ttl` seconds; None: ask by `get`."""
        found = self._found
        if self._numbers[SEQUENCE] != found.sequence:
            self._found = found = self._look()
        now = clock_gettime(CLOCK_BOOTTIME)
        # A beat from the future is that of another clock: this process is in a time namespace of its own.
        if not 0.0 <= now - self._times[BEAT] < BEAT_LASTS or now >= found.expires:
            return None
        if min_ttl and (found.expires - now <= min_ttl or min_ttl > found.lifetime / 2):
            return None
        return _copy(found)

    def refuse(self, value: str) -> None:
        """Until the daemon writes something, do not bring that token."""
        found = self._found
        if found.token is not None and found.token.value == value:
            self._found = _Found(found.sequence, NONE, None, 0.0, 0.0)

    @property
    def is_over(self) -> bool:
        """Whether nothing will follow: the daemon closed it, or seems to be dead."""
        age = clock_gettime(CLOCK_BOOTTIME) - self._times[BEAT]
        return self._look().state == CLOSED or not 0.0 <= age < BEAT_LASTS

    def _look(self) -> _Found:
        """What the memory says. Whatever is read while the daemon writes is read again."""
        memory, numbers = self._memory, self._numbers
        for _ in range(TRIES):
            before = numbers[SEQUENCE]
            _, _, value_size, rest_size, *_ = HEAD.unpack_from(memory, CONTENT)
            data = memory[CHECKSUM : CONTENT + HEAD.size + value_size + rest_size]
            if before % 2 == 0 and numbers[SEQUENCE] == before and is_whole(data, before):
                return self._read(data)
        return _Found(-1, NONE, None, 0.0, 0.0)

    def _read(self, data: bytes) -> _Found:
        sequence, state, value_size, _, _, _, expires, lifetime = HEAD.unpack_from(data, CONTENT - CHECKSUM)
        if state != TOKEN:
            return _Found(sequence, state, None, 0.0, 0.0)
        at = CONTENT - CHECKSUM + HEAD.size
        try:
            said = {**unpackb(data[at + value_size :]), "value": data[at : at + value_size].decode()}
            token = read_token({**said, "grant": self._grant, "expires_at": None})
        except (ValueError, TypeError, ProtocolError):  # a newer daemon says something that this version cannot read
            return _Found(sequence, NONE, None, 0.0, 0.0)
        return _Found(sequence, state, token, expires, lifetime)


class _Found:
    """What was read last."""

    __slots__ = ("expires", "lifetime", "sequence", "state", "token")

    def __init__(self, sequence: int, state: int, token: Token | None, expires: float, lifetime: float) -> None:
        self.sequence, self.state, self.token, self.expires, self.lifetime = sequence, state, token, expires, lifetime


class _Copy(Token):
    """A token for one `get`, so that programs may change its dicts. It takes each value when that is asked for."""

    __slots__ = ("_found",)

    _found: _Found

    def __getattr__(self, name: str) -> Any:
        if name not in Token.__slots__:
            raise AttributeError(f"a Token has no {name}")
        found = self._found
        if name == "expires_at":
            left = found.expires - clock_gettime(CLOCK_BOOTTIME)
            value: Any = None if left == _NEVER else round(time() + left, 2)
        else:
            value = getattr(found.token, name)
            value = dict(value) if isinstance(value, dict) else value
        _put(self, name, value)
        return value


def _copy(found: _Found) -> Token:
    made = _new(_Copy)
    _set_found(made, found)
    return made


class _Connection:
    """The connection with which shared tokens begin and end. Nothing else is asked on it."""

    def __init__(self, path: str) -> None:
        deadline = monotonic() + WITHIN
        while (sock := connect(path, socket)) is None:
            if monotonic() > deadline:
                raise unanswered(WITHIN)
            sleep(BUSY_PAUSE)
        self._sock = sock
        self._protocol = ClientProtocol()

    def share(self, grant: str) -> SharedTokenReader:
        """Raises OSError, ValueError, Lost and BrokerError."""
        self._sock.settimeout(WITHIN)
        self._sock.sendall(self._protocol.request(ClientRequest("share", {"grant": grant})))
        descriptors: list[int] = []
        try:
            while True:
                data, more, flags, _ = self._sock.recvmsg(READ_SIZE, CMSG_SPACE(4), MSG_CMSG_CLOEXEC)
                for level, kind, found in more:
                    if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                        descriptors += memoryview(found).cast("i").tolist()
                for _, response in [*self._protocol.receive(data)]:
                    read_result(response)
                    if len(descriptors) != 1 or flags & MSG_CTRUNC:
                        raise ProtocolError("expected one descriptor with the answer to share")
                    return SharedTokenReader(_mapped(descriptors[0]), grant)
        finally:
            for each in descriptors:
                os.close(each)

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:  # if nobody closed the Broker: a socket would warn
        if hasattr(self, "_sock"):
            self._sock.close()


def _mapped(descriptor: int) -> mmap:
    """Raises OSError and ValueError."""
    if fcntl(descriptor, F_GET_SEALS) & SEALED != SEALED:
        raise ProtocolError("expected memory whose size cannot change")
    return mmap(descriptor, SIZE, flags=MAP_SHARED, prot=PROT_READ)


def is_whole(data: bytes, sequence: int) -> bool:
    """Whether a copy from CHECKSUM on is one that the daemon finished with that sequence."""
    after = memoryview(data)[CONTENT - CHECKSUM :]
    said: tuple[int, ...] = (*_U32.unpack_from(data), *HEAD.unpack_from(after)[:1])
    return said == (crc32(after), sequence)


def own_process() -> int:
    """The number of this process, without a system call after the first time; a forked child learns its own."""
    if not _process[0]:
        _process[0] = os.getpid()
    return _process[0]


_put, _new, _NEVER = object.__setattr__, object.__new__, float("inf")
_set_found = _Copy.__dict__["_found"].__set__
_U32 = Struct("=I")
_own = mmap(-1, PAGESIZE, flags=MAP_PRIVATE | MAP_ANONYMOUS, prot=PROT_READ | PROT_WRITE)
_own.madvise(MADV_WIPEONFORK)  # raises OSError on kernels without it: no shared tokens
_process = memoryview(_own).cast("Q")
