# Sends messages to systemd-journald by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), with fields to search
# for. The sender never waits: while the journal is slow, a thread waits, and messages beyond the queue's limit are
# counted.
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from brokerd.core.events import Event

SOCKET = Path("/run/systemd/journal/socket")
LONGEST_QUEUE = 10_000  # messages; a start with that many grants logs one for each
CLOSE_WITHIN = 2.0  # seconds to wait at the end of the process for messages that are not sent yet
LOOK_AGAIN = 0.005  # seconds between two checks whether the journal has read them
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Fields = Mapping[str, str]


def encode(fields: Fields) -> bytes:
    """Each value with its length before it, so that no value can end early and continue as another field."""
    encoded = b""
    for name, value in fields.items():
        data = value.encode(errors="replace")
        encoded += name.encode("ascii") + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return encoded


class Journal:
    """The connection to the journal. What the journal refuses is written to the descriptor `fallback`, as one line."""

    def __init__(self, path: Path = SOCKET, fallback: int = 2) -> None:
        self._path = str(path)
        self._fallback = fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._queue: deque[Fields] = deque()
        self._turn = threading.Condition()
        self._sender: threading.Thread | None = None
        self._lost = 0

    def say(self, fields: Fields) -> None:
        """Send or queue a message. It never waits, never raises OSError, and keeps the order."""
        with self._turn:
            if self._sender is None and self._sent_at_once(fields):
                return
            if len(self._queue) >= LONGEST_QUEUE:
                self._lost += 1
                return
            self._queue.append(fields)
            if self._sender is None:
                self._sender = threading.Thread(target=self._catch_up, name="journal", daemon=True)
                self._sender.start()

    def close(self) -> None:
        """Call this at the end of the process. It waits until the messages are sent and read, because the journal finds
        the unit of a message by the process that sent it."""
        end = time.monotonic() + CLOSE_WITHIN
        with self._turn:
            self._turn.wait_for(lambda: self._sender is None, CLOSE_WITHIN)
        while self._unread() and time.monotonic() < end:
            time.sleep(LOOK_AGAIN)
        if self._sender is None:
            self._socket.close()

    def _unread(self) -> int:
        """Bytes that the journal has not read yet (unix(7), SIOCOUTQ)."""
        (number,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))
        return int(number)

    def _sent_at_once(self, fields: Fields) -> bool:
        try:
            self._send(encode(fields), socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def _catch_up(self) -> None:
        """Send queued messages until the queue is empty."""
        while True:
            self._send_patiently(self._queue[0])
            with self._turn:
                self._queue.popleft()
                if self._lost and not self._queue:
                    event = Event.MESSAGES_LOST
                    words = f'event={event} message="{event.words}" lost={self._lost} remedy="{event.remedy}"'
                    found = {"MESSAGE": words, "PRIORITY": "4", "SYSLOG_IDENTIFIER": "brokerd", "EVENT": str(event)}
                    self._queue.append(found)
                    self._lost = 0
                if not self._queue:
                    self._sender = None
                    self._turn.notify_all()
                    return

    def _send_patiently(self, fields: Fields) -> None:
        try:
            self._send(encode(fields), 0)
        except OSError:
            line = f"<{fields['PRIORITY']}>{fields['MESSAGE']}\n".encode(errors="replace")
            with contextlib.suppress(OSError):  # there is no other place to report it
                os.write(self._fallback, line)

    def _send(self, data: bytes, flags: int) -> None:
        """Raises OSError: nothing was sent."""
        try:
            self._socket.sendto(data, flags, self._path)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._send_in_memory(data, flags)

    def _send_in_memory(self, data: bytes, flags: int) -> None:
        """Send a message that is too long for a datagram as a sealed file in memory."""
        descriptor = os.memfd_create("brokerd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(data)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
            self._socket.sendmsg([], rights, flags, self._path)
        finally:
            os.close(descriptor)
