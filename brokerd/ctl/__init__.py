# brokerctl: reads the command line, runs one command, and ends with an exit code and, after a failure, one line. Every
# import here makes a get from a shell slower, so each command's code, and what it needs, is imported when it runs.
from __future__ import annotations

import os
import sys

from brokerd_client import Broker, BrokerError, NotPermitted, ProtocolError
from brokerd_client.address import SYSTEM, find_socket, is_ours

from brokerd.ctl.terminal import OPTIONS, Failed, complain, drop_output, plain

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from brokerd.ctl.command_rows import Command

OUR_BUG, USAGE, REFUSED, TRY_AGAIN, OVER, NO_DAEMON = 1, 2, 3, 4, 5, 6
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE

EXITS = {
    "internal": OUR_BUG,
    "misconfigured": USAGE,
    "bad_request": USAGE,
    "unknown_grant": REFUSED,
    "denied": REFUSED,
    "unavailable": TRY_AGAIN,
    "limit": TRY_AGAIN,
    "locked": TRY_AGAIN,
    "needs_login": OVER,
    "revoked": OVER,
    "no_daemon": NO_DAEMON,
}
REMEDIES = {
    "unknown_grant": "to see the grants that you may use: brokerctl status",
    "denied": "a rule ([[allow]]) in the configuration must allow it",
    "needs_login": "log in: brokerctl login GRANT; or import a refresh token: brokerctl import GRANT",
    "revoked": "to use it again: brokerctl login GRANT; or import a new refresh token: brokerctl import GRANT",
    "misconfigured": "change the configuration, then: brokerctl reload",
    "internal": "see brokerd's log: journalctl -u brokerd, or journalctl --user -u brokerd",
    "locked": "to unlock: brokerctl unlock",
    "bad_request": "see brokerctl --help; brokerd may have another version: brokerctl version",
}


def script() -> int:
    """The console script. What other programs run a thousand times ends without the interpreter's clean-up, which would
    take a fifth of its time; nothing is left then that needs it. Returns the exit code."""
    code = main()
    if "argparse" not in sys.modules:  # _run took a short way
        os._exit(code)
    return code


def main() -> int:
    """Runs the command. Returns the exit code."""
    code, words = ended(lambda: _run(sys.argv[1:]))
    if words:
        complain(words)
    return code


def ended(work: Callable[[], int]) -> tuple[int, str]:
    """Runs `work`. Returns its exit code and, if it failed, the error that is still to be printed."""
    try:
        code = work()
        if sys.stdout is not None:
            sys.stdout.flush()
    except Failed as failed:
        return failed.code, str(failed)
    except BrokerError as error:
        refused = REFUSED if isinstance(error, NotPermitted) else EXITS.get(error.code, OUR_BUG)
        return OUR_BUG if isinstance(error, ProtocolError) else refused, _words(error)
    except BrokenPipeError:
        drop_output()
        return BROKEN_PIPE, ""
    except KeyboardInterrupt:
        return INTERRUPTED, ""
    except OSError as error:
        drop_output()
        return OUR_BUG, f"the system refused: {error.strerror or type(error).__name__}; fix that and try again"
    except Exception as error:
        # Neither the error's text nor a traceback: there may be a secret in them.
        return OUR_BUG, f"a bug in brokerctl: {type(error).__name__} {_place(error)}; please report it"
    return code, ""


def _run(words: list[str]) -> int:
    # Scripts and other programs run these a thousand times, and argparse would take half of their time.
    at = 2 if words[:1] == ["--socket"] else 0
    match words[at:]:
        case ["get", grant] if not grant.startswith("-"):
            from brokerd.ctl.commands.tokens import print_token

            return _run_plain(words[:at], lambda broker: print_token(broker, grant))
        case ["credential", "aws" | "headers" | "kubernetes" as form, grant] if not grant.startswith("-"):
            from brokerd.ctl.commands.credential import print_as

            return _run_plain(words[:at], lambda broker: print_as(broker, form, grant))
    from brokerd.ctl.arguments import read_arguments

    try:
        arguments = read_arguments(words)
    except SystemExit:  # argparse has printed the help, or the version
        return 0
    row: Command = arguments.row
    if not row.needs_daemon:
        return row.run(arguments)
    with Broker(socket_of(arguments)) as broker:
        return row.run(broker, arguments)


def _run_plain(options: list[str], work: Callable[[Broker], int]) -> int:
    """A command without options of its own; `options`: --socket PATH, or nothing."""
    OPTIONS[:] = options
    with Broker(options[1] if options else own_socket()) as broker:
        return work(broker)


def socket_of(arguments: Namespace) -> str | None:
    """The socket of the brokerd that the options name. None: the client library finds it. Raises Failed."""
    socket: str | None = arguments.socket
    if socket is not None:
        return socket
    if arguments.config is None:
        return own_socket()
    from brokerd.core.validation import ConfigError
    from brokerd.setup.layout import socket_in_use

    try:
        return socket_in_use(arguments.config)
    except ConfigError as error:
        raise Failed(f"{plain(str(error))}; or name the socket: --socket PATH") from None


def own_socket() -> str | None:
    """The socket of a user's own configuration, if the client library would use the system's brokerd."""
    if os.environ.get("BROKERD_SOCKET") or not os.geteuid() or find_socket() != SYSTEM:
        return None
    if not os.access(os.path.expanduser("~/.config/brokerd/brokerd.toml"), os.R_OK):  # noqa: PTH111 - pathlib is slow
        return None
    from brokerd.setup.layout import told_socket

    runtime = os.environ.get("XDG_RUNTIME_DIR")
    mine = runtime is not None and is_ours(runtime)  # after `su` it may still be another user's
    return told_socket(expected=mine and not os.access(SYSTEM, os.F_OK))


def _words(error: BrokerError) -> str:
    words = plain(error.message)
    if isinstance(error, ProtocolError):
        return f"the program at the socket is not brokerd: {words}; name another socket with --socket or BROKERD_SOCKET"
    if error.request_id is not None:
        words = f"{words} (request_id {plain(error.request_id)})"
    if error.retry_after is not None:
        return f"{words}; try again in {max(error.retry_after, 1):.0f} s"
    if ";" in words or error.code not in REMEDIES:
        return words
    return f"{words}; {REMEDIES[error.code]}"


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}"
