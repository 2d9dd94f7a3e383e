# What all credential helpers have in common: they read a question from stdin, find the grant in helpers.toml, ask
# brokerd for its token, and explain on stderr why there is none. Only an answer in the client's protocol is on stdout.
from __future__ import annotations

import os
import sys

from brokerd_client.blocking import Broker
from brokerd_client.errors import BrokerError, Denied, NoDaemon, UnknownGrant
from brokerd_client.helpers import HelpersError, look_up
from brokerd_client.messages import read_token

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from brokerd_client.helpers import Address, Use
    from brokerd_client.messages import Token

LONGEST_QUESTION = 1024 * 1024  # bytes; a token that git reports has at most 256 KiB
USERNAME = "oauth2"  # what goes beside a token unless helpers.toml says otherwise; GitLab wants it, most take any
OUR_BUG, FAILED, USAGE = 1, 1, 2  # exit codes
PRIVATE_ERRORS = (UnknownGrant, Denied, NoDaemon)  # this user has no token here, and may have another credential


class NoCredential(Exception):
    """There is no grant for this address and this user: the client shall look elsewhere. The text is for people."""


class NoToken(Exception):
    """There is a grant, and brokerd has no token of it now. The text is for people."""


def use_for(address: Address | None, username: str | None = None) -> Use:
    """The table about that address, and about that user if the client named one. Raises NoCredential, HelpersError."""
    use = look_up(address)
    if use is None:
        raise NoCredential("")
    if username and use.username and username != use.username:
        raise NoCredential(f"helpers.toml has the grant {use.grant} for another user of this address")
    return use


def token_of(use: Use, broker: Broker | None = None, refused: Mapping[str, str] | None = None) -> Token:
    """A token of the table's grant. `refused`: another token than this, as refused_params says it. Raises NoCredential,
    NoToken."""
    broker = Broker() if broker is None else broker
    try:
        with broker:
            return read_token(broker.call("get", grant=use.grant, **refused or {}), use.grant)
    except PRIVATE_ERRORS as error:
        raise NoCredential(error.message) from None
    except BrokerError as error:
        again = f"; try again in {max(error.retry_after, 1):.0f} s" if error.retry_after is not None else ""
        raise NoToken(f"{error.message}{again}") from None


def question() -> bytes:
    """What the client writes to stdin. Raises NoCredential if it is too long."""
    data = b"" if sys.stdin is None else sys.stdin.buffer.read(LONGEST_QUESTION + 1)
    if len(data) > LONGEST_QUESTION:
        raise NoCredential(f"the client's question has more than {LONGEST_QUESTION} bytes")
    return data


def write(text: str) -> None:
    """An answer to stdout, in UTF-8 in every locale."""
    if sys.stdout is not None:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def run(program: str, operations: Mapping[str, Callable[[], int]], protocol: str) -> int:
    """The operation that the command line names. Returns the exit code. An operation of a later version of the
    protocol is ignored, as these protocols ask for."""
    match sys.argv[1:]:
        case [name, *_] if not name.startswith("-"):
            return _ended(program, operations.get(name, ignored))
    explain(program, f"{protocol} runs this program; usage: {program} {'|'.join(operations)}; see {program}(1)")
    return USAGE


def ignored() -> int:
    """An operation that does nothing."""
    return 0


def explain(program: str, words: str) -> None:
    """To stderr, without control characters, which could change the terminal."""
    if words and sys.stderr is not None:
        text = "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in words)
        sys.stderr.write(f"{program}: {text}\n")


def _ended(program: str, operation: Callable[[], int]) -> int:
    try:
        return operation()
    except (NoCredential, NoToken) as reason:
        words, code = str(reason), 0 if isinstance(reason, NoCredential) else FAILED
    except HelpersError as error:
        words, code = str(error), FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's flush at its end does not fail too
        words, code = "", FAILED
    except KeyboardInterrupt:
        words, code = "", 130
    except Exception as error:  # neither its text nor a traceback: there may be a secret in them
        words, code = f"a bug in {program}: {type(error).__name__}; please report it", OUR_BUG
    explain(program, words)
    return code
