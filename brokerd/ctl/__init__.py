# brokerctl: reads the command line, runs one command, turns how it ended into an exit code and one line. A get from
# a shell pays for every import here: each command's code, and whatever it needs, is imported when it runs.
from __future__ import annotations

import os
import sys

from brokerd_client import Broker, BrokerError, NotPermitted, ProtocolError
from brokerd_client.address import SYSTEM, find_socket, is_ours

from brokerd.ctl.terminal import OPTIONS, Failed, complain, drop_output, plain

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace

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
    "unknown_grant": "brokerctl status lists those that you may use",
    "denied": "a rule ([[allow]]) of the configuration has to permit it",
    "needs_login": "log in: brokerctl login GRANT; or give it a refresh token: brokerctl import GRANT",
    "revoked": "to use it again: brokerctl login GRANT; or give it a new refresh token: brokerctl import GRANT",
    "misconfigured": "change the configuration, then: brokerctl reload",
    "internal": "see what brokerd has logged (journalctl, or journalctl --user, -u brokerd)",
    "locked": "brokerctl unlock",
    "bad_request": "see brokerctl --help, and brokerctl version: brokerd may have another version",
}


def main() -> int:
    """The console script. Returns the exit code (DESIGN.md 6)."""
    try:
        code = _run(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
    except Failed as failed:
        complain(str(failed))
        return failed.code
    except BrokerError as error:
        complain(_words(error))
        if isinstance(error, ProtocolError):
            return OUR_BUG
        return REFUSED if isinstance(error, NotPermitted) else EXITS.get(error.code, OUR_BUG)
    except BrokenPipeError:
        drop_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        drop_output()
        complain(f"the system refused: {error.strerror or type(error).__name__}; remove the cause and try again")
        return OUR_BUG
    except Exception as error:
        # Neither the error's text nor a traceback: nobody knows what is in them.
        complain(f"a fault of brokerctl's own: {type(error).__name__} {_place(error)}; please report it")
        return OUR_BUG
    return code


def _run(words: list[str]) -> int:
    match words:
        case ["get", grant] | ["--socket", _, "get", grant] if not grant.startswith("-"):
            # What scripts run a thousand times: half of its time would be argparse's.
            from brokerd.ctl.fetch import print_token

            OPTIONS[:] = words[:-2]
            with Broker(words[1] if len(words) > 2 else own_socket()) as broker:
                return print_token(broker, grant)
    from brokerd.ctl.arguments import read_arguments

    try:
        arguments = read_arguments(words)
    except SystemExit:  # argparse has printed the help, or the version
        return 0
    code: int
    if arguments.local is not None:
        code = arguments.local(arguments)
    else:
        with Broker(socket_of(arguments)) as broker:
            code = arguments.run(broker, arguments)
    return code


def socket_of(arguments: Namespace) -> str | None:
    """The socket of the brokerd that the options name; None: where the client library looks. Raises Failed."""
    socket: str | None = arguments.socket
    if socket is not None:
        return socket
    if arguments.config is None:
        return own_socket()
    from brokerd.core.typed import ConfigError
    from brokerd.installing import socket_in_use

    try:
        return socket_in_use(arguments.config)
    except ConfigError as error:
        raise Failed(f"{plain(str(error))}; or name the socket: --socket PATH") from None


def own_socket() -> str | None:
    """That of a user's own configuration, where the client library would look for the system's brokerd."""
    if os.environ.get("BROKERD_SOCKET") or not os.geteuid() or find_socket() != SYSTEM:
        return None
    if not os.access(os.path.expanduser("~/.config/brokerd/brokerd.toml"), os.R_OK):  # noqa: PTH111 - pathlib is slow
        return None
    from brokerd.installing import told_socket

    runtime = os.environ.get("XDG_RUNTIME_DIR")
    mine = runtime is not None and is_ours(runtime)  # after `su` it may be another user's still
    return told_socket(expected=mine and not os.access(SYSTEM, os.F_OK))


def _words(error: BrokerError) -> str:
    words = plain(error.message)
    if isinstance(error, ProtocolError):
        return f"what answers at the socket is not brokerd: {words}; name another with --socket or BROKERD_SOCKET"
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
