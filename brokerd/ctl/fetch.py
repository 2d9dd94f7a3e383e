# The commands that bring tokens: get, exec, proof, watch. Values go where they were asked to go, and nowhere else.
from __future__ import annotations

import os

from brokerd_client import Token
from brokerd_client.messages import read_token
from brokerd_client.session import refused_params

from brokerd.ctl.terminal import Failed, away, complain, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import NoReturn

    from brokerd_client import Broker, Gone

CANNOT_RUN, NOT_FOUND = 126, 127  # as shells and env(1) have it


def print_token(broker: Broker, grant: str) -> int:
    """The plain get, of a grant and nothing else."""
    write(broker.get(grant).value)
    return 0


def get(broker: Broker, arguments: Namespace) -> int:
    """Print the token."""
    token = _fetch(broker, arguments)
    if arguments.json:
        import json

        write(json.dumps(_as_map(token)))
    elif arguments.header:
        for name, value in token.header.items():
            write(f"{name}: {value}")
    else:
        write(token.value)
    return 0


def execute(broker: Broker, arguments: Namespace) -> NoReturn:
    """Become the command, with the token in its environment."""
    import signal

    name, program = arguments.env, arguments.program
    if len(name.split()) != 1 or "=" in name:
        raise Failed(f"--env: expected the name of an environment variable, found {plain(name)!r}")
    token = _fetch(broker, arguments)
    broker.close()
    for each in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
        signal.signal(each, signal.SIG_DFL)
    try:
        os.execvpe(program[0], program, {**os.environ, name: token.value})  # noqa: S606 - it is what was asked for
    except FileNotFoundError:
        raise Failed(f"{plain(program[0])}: command not found; give its path", NOT_FOUND) from None
    except OSError as error:
        raise Failed(f"{plain(program[0])}: cannot be run: {error.strerror}", CANNOT_RUN) from None


def proof(broker: Broker, arguments: Namespace) -> int:
    """Print what one request needs: the token and a proof for it."""
    token = broker.proof(arguments.grant, arguments.http_method, arguments.url, nonce=arguments.nonce)
    if arguments.json:
        import json

        write(json.dumps({**_as_map(token), "proof": token.header["DPoP"]}))
    else:
        for name, value in token.header.items():
            write(f"{name}: {value}")
    return 0


def watch(broker: Broker, arguments: Namespace) -> int:
    """Print events for ever."""
    for event in broker.watch(*arguments.grants):
        if arguments.json:
            import json

            write(json.dumps(_event_as_map(event)))
        elif not arguments.values:
            write(_event_in_words(event))
        elif isinstance(event, Token):
            write(event.value)
        else:
            complain(_event_in_words(event))
    return 0


def _fetch(broker: Broker, arguments: Namespace) -> Token:
    options = {"min_ttl": arguments.min_ttl, "wait": arguments.wait}
    options |= {"scope": arguments.scope, "audience": arguments.audience, "resource": arguments.resource}
    given = {name: value for name, value in options.items() if value is not None}
    if getattr(arguments, "refused", False):
        from brokerd.ctl.change import LONGEST_TOKEN, read_secret

        refused = read_secret(arguments.grant, "refused token", LONGEST_TOKEN)
        given |= refused_params(refused)
    return read_token(broker.call("get", grant=arguments.grant, **given))


def _as_map(token: Token) -> dict[str, object]:
    return {
        "value": token.value,
        "token_type": token.token_type,
        "expires_at": token.expires_at,
        "grant": token.grant,
    }


def _event_as_map(event: Token | Gone) -> dict[str, object]:
    if isinstance(event, Token):
        return {"event": "token", **_as_map(event)}
    return {"event": "gone", **event.error.as_map()}


def _event_in_words(event: Token | Gone) -> str:
    import time

    now = time.time()
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if not isinstance(event, Token):
        return f"{at} {plain(event.grant)} gone: {plain(event.error.message)}"
    expiry = "no expiry known" if event.expires_at is None else f"expires {away(event.expires_at - now)}"
    return f"{at} {plain(event.grant)} token, {expiry}"
