# A process that does what the test tells it, for callers of every kind: `python -I -S caller_process.py SOCKET FD`,
# started as root. Each line of its stdin is a JSON array, a command and its arguments. It answers each with a line:
# "ok", or what went wrong. FD is the socket that it connects and sends on. The test holds FD too and reads the answers.
import contextlib
import ctypes
import errno
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
SYS_CLONE3, SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 435, 434, 438
CLONE_NEW = {"user": 0x10000000, "pid": 0x20000000, "mount": 0x20000, "cgroup": 0x02000000}
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
GIVE_UP = 10.0  # seconds


def check(result):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Actor:
    def __init__(self, path, sock):
        self.path, self.sock = path, sock

    def connect(self):
        self.sock.connect(self.path)

    def send(self, text):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the answer says so, too
            self.sock.sendall(bytes.fromhex(text))

    def send_with_descriptors(self, text, number):
        null = os.open(os.devnull, os.O_RDONLY)
        socket.send_fds(self.sock, [bytes.fromhex(text)], [null] * number)

    def send_claiming(self, text, pid, uid, gid):
        """Credentials of our own choice (unix(7), SCM_CREDENTIALS)."""
        said = struct.pack("iII", pid or os.getpid(), uid, gid)
        self.sock.sendmsg([bytes.fromhex(text)], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, said)])

    def become(self, uid, gid, *groups):
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        check(libc.prctl(4, 1, 0, 0, 0))  # PR_SET_DUMPABLE: /proc/self is our own again

    def enter(self, cgroup):
        Path(cgroup, "cgroup.procs").write_text("0")

    def unshare(self, *kinds):
        check(libc.unshare(sum(CLONE_NEW[kind] for kind in kinds)))

    def map(self, inside, uid, gid):
        """In a new user namespace we are `inside`."""
        for name, text in (("setgroups", "deny"), ("uid_map", f"{inside} {uid} 1"), ("gid_map", f"{inside} {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text)

    def bind(self, source, target):
        check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        check(libc.mount(source.encode(), target.encode(), None, MS_BIND, None))

    def chroot(self, folder):
        os.chroot(folder)
        os.chdir("/")

    def fork(self):
        """The child goes on; this process waits for its end."""
        if pid := os.fork():
            os.waitpid(pid, 0)
            os._exit(0)

    def leave_to_a_child(self):
        """The child goes on when this process is gone."""
        pid = os.getpid()
        if os.fork():
            os._exit(0)
        self._gone(pid)

    def leave_to_a_child_with_our_number(self):
        """The child's child goes on, with the number of this process, which is gone (clone3(2), set_tid)."""
        pid = os.getpid()
        if os.fork():
            os._exit(0)
        os.setsid()  # the number is taken as long as it is a session's
        self._gone(pid)
        number = ctypes.c_int(pid)
        arguments = (ctypes.c_uint64 * 11)()
        arguments[4], arguments[8], arguments[9] = 17, ctypes.addressof(number), 1  # SIGCHLD, set_tid, set_tid_size
        deadline = time.monotonic() + GIVE_UP
        while (found := libc.syscall(SYS_CLONE3, arguments, ctypes.sizeof(arguments))) < 0:
            code = ctypes.get_errno()
            if code != errno.EEXIST or time.monotonic() > deadline:
                raise OSError(code, os.strerror(code))
        if found:
            os.waitpid(found, 0)
            os._exit(0)
        assert os.getpid() == pid

    def steal(self, pid, number):
        """The socket of another process (pidfd_getfd(2))."""
        there = check(libc.syscall(SYS_PIDFD_OPEN, pid, 0))
        self.sock = socket.socket(fileno=check(libc.syscall(SYS_PIDFD_GETFD, there, number, 0)))

    def take(self):
        """A socket that somebody hands over on the one that we have (SCM_RIGHTS)."""
        _, (descriptor,), _, _ = socket.recv_fds(self.sock, 1, 1)
        self.sock = socket.socket(fileno=descriptor)

    def execute(self, path, name):
        """Becomes a shell: stdin is its script from now on, and the socket its descriptor 3."""
        os.dup2(self.sock.fileno(), 3)
        say("ok")
        os.execv(path, [name])

    def execute_from_memory(self, path):
        os.dup2(self.sock.fileno(), 3)
        copy = os.memfd_create(path)
        os.write(copy, Path(path).read_bytes())
        say("ok")
        os.execve(copy, [path], {})

    def _gone(self, pid):
        deadline = time.monotonic() + GIVE_UP
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline, "the parent is still there"
            time.sleep(0.001)


def say(words):
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def main():
    actor = Actor(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
    descriptor = sys.stdin.fileno()
    line = b""
    while True:
        while not line.endswith(b"\n"):  # byte by byte: what follows may be a shell's, or a child's
            if not (byte := os.read(descriptor, 1)):
                return
            line += byte
        command, *arguments = json.loads(line)
        line = b""
        try:
            getattr(actor, command)(*arguments)
            say("ok")
        except Exception as error:
            say(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
