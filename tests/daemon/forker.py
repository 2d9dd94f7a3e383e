# Starts daemons quickly for the tests: imports the module that its argument names once, and forks, where a new
# interpreter would take a second. On stdin, a socket, come requests (arguments as JSON, with the descriptor that is to
# be stdout and stderr); answers, a line each, are {"pid"} of one that began, which is to be confirmed by a byte, and
# {"pid", "status"} of one that ended.
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1
LONGEST = 65_536  # bytes of a request
brokerd = importlib.import_module(sys.argv[1]).main


def main() -> None:
    wakes, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    with wakes, wake, socket.socket(fileno=0) as control, selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wakes, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is wakes:
                    wakes.recv(4096)
                    reap(control)
                    continue
                request, descriptors, _, _ = socket.recv_fds(control, LONGEST, 1)
                if not request:
                    return
                answer(control, pid=start(json.loads(request), descriptors[0]))
                control.recv(1)  # it is known by a pidfd now: only then may it be reaped, and its number go to another


def start(arguments: list[str], output: int) -> int:
    pid = os.fork()
    if pid:
        os.close(output)
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 64)
        sys.argv = ["brokerd", *arguments]
        status = run()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        os._exit(status)


def run() -> int:
    """As an interpreter ends: the exit status."""
    try:
        brokerd()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        answer(control, pid=pid, status=os.waitstatus_to_exitcode(status))


def answer(control: socket.socket, **said: int) -> None:
    control.sendall(json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
