# Starts programs of ours quickly for the tests: imports the module that its argument names once, then forks its
# main(), because a new interpreter would take a second. Its stdin is a socket. A request is the length of what follows,
# with the descriptors for stdin, stdout and stderr, and then JSON: {"arguments", "environment", "folder"}; the last two
# may be null. Answers are lines: {"pid"} when a program began, which the test confirms with a byte, and
# {"pid", "status"} when it ended.
import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import sys
import threading
from typing import Any

from brokerd.daemon.late_imports import LATE
from tests.forked import LENGTH, die_with_parent

program = importlib.import_module(sys.argv[1]).main
for late in LATE:
    importlib.import_module(late)


def main() -> None:
    wakes, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    gc.collect()
    gc.freeze()  # what is here already costs no child a collection
    with wakes, wake, socket.socket(fileno=0) as control, selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wakes, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is wakes:
                    wakes.recv(4096)
                    reap(control)
                    continue
                head, descriptors, _, _ = socket.recv_fds(control, LENGTH.size, 3)
                if not head:
                    return
                request = json.loads(control.recv(*LENGTH.unpack(head), socket.MSG_WAITALL))
                answer(control, pid=start(request, descriptors))
                control.recv(1)  # it is known by a pidfd now: only then may it be reaped, and its number go to another


def start(request: dict[str, Any], descriptors: list[int]) -> int:
    pid = os.fork()
    if pid:
        for each in descriptors:
            os.close(each)
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        die_with_parent()
        for number, each in enumerate(descriptors):
            os.dup2(each, number)
        os.closerange(3, 64)
        begin(request)
        status = run()
        end()
    except BaseException:
        status = status or 1
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def begin(request: dict[str, Any]) -> None:
    """As an interpreter begins, with what it has of its environment."""
    sys.argv = ["brokerd", *request["arguments"]]
    if request["folder"] is not None:
        os.chdir(request["folder"])
    if request["environment"] is not None:
        os.environ.clear()
        os.environ.update(request["environment"])
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        former = getattr(sys, name)
        buffering = 0 if number and os.environ.get("PYTHONUNBUFFERED") else -1
        raw = open(number, "wb" if number else "rb", buffering, closefd=False)  # noqa: SIM115
        # An error's text may hold anything, whatever the environment says.
        handler = former.errors if number == 2 else errors or former.errors
        by_line = number == 2 or raw.isatty()
        text = io.TextIOWrapper(
            raw, encoding or former.encoding, handler, line_buffering=by_line, write_through=not buffering
        )
        setattr(sys, name, text)


def run() -> int:
    """The exit status."""
    try:
        status = program()
    except SystemExit as ends:
        status = ends.code
    return status if isinstance(status, int) else int(status is not None)


def end() -> None:
    """As an interpreter ends: it waits for threads, and says what was never closed."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()


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
