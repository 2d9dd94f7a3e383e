# A file system with one file that can stop answering (fuse(4), protocol 7.31). Then it answers reads only, so that a
# program that was started from it goes on. The kernel asks it for attributes each time. Needs root.
from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.did_not_run import did_not_run

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, STATFS, INIT, INTERRUPT, FORGET_MANY = 1, 2, 3, 14, 15, 18, 17, 26, 36, 42
UNANSWERED = (FORGET, INTERRUPT, FORGET_MANY)
HEAD, REPLY, BYTES = struct.Struct("IIQQIIIHH"), struct.Struct("IiQ"), struct.Struct("QQI")
ROOT, FILE = 1, 2  # nodes
LONGEST = 1 << 18  # bytes of a request
MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """Mounted on `folder`, where the file `path` has these bytes."""

    def __init__(self, folder: Path, name: str, content: bytes) -> None:
        self.path = folder / name
        self.asked = threading.Event()  # in vain
        self._content = content
        self._silent = self._ended = False
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self._wake = os.eventfd(0)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _libc.mount(b"test", os.fsencode(folder), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "a FUSE file system cannot be mounted")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def fall_silent(self) -> None:
        self._silent = True

    def speak(self) -> None:
        self._silent = False
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        self._ended = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._device)  # ends whatever still waits for it
        os.close(self._wake)
        _libc.umount2(os.fsencode(self.path.parent), MNT_DETACH)

    def _serve(self) -> None:
        poll = select.poll()
        for each in (self._device, self._wake):
            poll.register(each, select.POLLIN)
        waiting: list[bytes] = []
        while not self._ended:
            for ready, _ in poll.poll():
                if ready == self._wake:
                    os.eventfd_read(self._wake)
                else:
                    waiting.append(os.read(self._device, LONGEST))
            waiting = [each for each in waiting if not self._answered(each)]

    def _answered(self, request: bytes) -> bool:
        _, operation, number, node, *_ = HEAD.unpack_from(request)
        if operation in UNANSWERED:
            return True
        if self._silent and operation != READ:
            self.asked.set()
            return False
        answer = self._answer(operation, node, request[HEAD.size :])
        body, code = (b"", -answer) if isinstance(answer, int) else (answer, 0)
        with contextlib.suppress(FileNotFoundError):  # who asked is gone
            os.write(self._device, REPLY.pack(REPLY.size + len(body), code, number) + body)
        return True

    def _answer(self, operation: int, node: int, body: bytes) -> bytes | int:
        if operation == INIT:
            return struct.pack("IIIIHHIIHHI28x", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0)
        if operation == LOOKUP:
            found = body.rstrip(b"\0") == os.fsencode(self.path.name)
            return struct.pack("QQQQII", FILE, 0, 0, 0, 0, 0) + self._attributes(FILE) if found else errno.ENOENT
        if operation == GETATTR:
            return struct.pack("QII", 0, 0, 0) + self._attributes(node)
        if operation == READ:
            _, offset, size = BYTES.unpack_from(body)
            return self._content[offset : offset + size]
        empty = {OPEN: bytes(16), RELEASE: b"", STATFS: bytes(80)}
        return empty.get(operation, errno.ENOSYS)

    def _attributes(self, node: int) -> bytes:
        mode, size = (stat.S_IFREG | 0o755, len(self._content)) if node == FILE else (stat.S_IFDIR | 0o755, 0)
        return struct.pack("QQQQQQIIIIIIIIII", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@contextlib.contextmanager
def disk(folder: Path, name: str, content: bytes) -> Iterator[Disk]:
    if not Path("/dev/fuse").exists():
        did_not_run("TESTS WITH A SILENT FILE SYSTEM", "there is no /dev/fuse")
    folder.mkdir()
    made = Disk(folder, name, content)
    try:
        yield made
    finally:
        made.close()
        folder.rmdir()
