# The commands that fetch tokens: get, exec, proof, watch. A token goes to stdout or into a variable, nowhere else.
from __future__ import annotations

import os

from brokerd_client import Token
from brokerd_client.messages import read_token
from brokerd_client.request import refused_params

from brokerd.ctl.terminal import Failed, away, complain, plain, write, write_json

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import NoReturn

    from brokerd_client import Broker, Gone

FIELD = "field:"
CANNOT_RUN, NOT_FOUND = 126, 127  # the exit codes of shells and env(1)


def print_token(broker: Broker, grant: str) -> int:
    """`get GRANT` without any option."""
    write(broker.get(grant).value)
    return 0


def get(broker: Broker, arguments: Namespace) -> int:
    """Print the token."""
    token = _fetch(broker, arguments)
    if arguments.json:
        write_json(_as_map(token))
    elif arguments.field is not None:
        write(_field(token, arguments.field))
    elif arguments.header:
        for name, value in token.header.items():
            write(f"{name}: {value}")
    else:
        write(token.value)
    return 0


def execute(broker: Broker, arguments: Namespace) -> NoReturn:
    """Replace this process by the command, with the token and its fields in its environment."""
    import signal
    from errno import E2BIG

    from brokerd.ctl.command_table import DEFAULT_ENV

    variables, program = [_variable(each) for each in arguments.env or [DEFAULT_ENV]], arguments.program
    token = _fetch(broker, arguments)
    broker.close()
    added = {name: token.value if field is None else _field(token, field) for name, field in variables}
    for each in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would too
        signal.signal(each, signal.SIG_DFL)
    try:
        os.execvpe(program[0], program, {**os.environ, **added})  # noqa: S606 - the user asked for it
    except FileNotFoundError:
        raise Failed(f"{plain(program[0])}: command not found; give its path", NOT_FOUND) from None
    except OSError as error:
        words = f"{plain(program[0])}: cannot be run: {error.strerror}"
        if error.errno == E2BIG:
            words += "; a variable has room for 128 KiB: have the program ask for the token itself"
        raise Failed(words, CANNOT_RUN) from None


def proof(broker: Broker, arguments: Namespace) -> int:
    """Print the headers of one request: the token and a proof."""
    token = broker.proof(arguments.grant, arguments.http_method, arguments.url, nonce=arguments.nonce)
    if arguments.json:
        write_json({**_as_map(token), "proof": token.header["DPoP"]})
    else:
        for name, value in token.header.items():
            write(f"{name}: {value}")
    return 0


def watch(broker: Broker, arguments: Namespace) -> int:
    """Print events until interrupted."""
    for event in broker.watch(*arguments.grants):
        if arguments.json:
            write_json(_event_as_map(event))
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
        from brokerd.ctl.commands.change import read_secret

        refused = read_secret(arguments.grant, "refused token")
        given |= refused_params(refused)
    return read_token(broker.call("get", grant=arguments.grant, **given))


def _variable(text: str) -> tuple[str, str | None]:
    """A variable and the field that it holds; None: it holds the token."""
    name, equals, what = text.partition("=")
    if len(name.split()) != 1 or (equals and not what.startswith(FIELD)):
        words = f"the name of an environment variable, alone or with ={FIELD}NAME"
        found = f"{name}=…" if equals else name  # what follows may be a secret in the wrong place
        raise Failed(f"--env: expected {words}, found {plain(found)!r}")
    return name, what.removeprefix(FIELD) if equals else None


def _field(token: Token, name: str) -> str:
    if name not in token.fields:
        there = ", ".join(sorted(token.fields)) or "none; the grant or its recipe names them in fields"
        raise Failed(f"{plain(token.grant)}: its token has no field {plain(name)!r}; it has: {plain(there)}")
    return token.fields[name]


def _as_map(token: Token) -> dict[str, object]:
    found: dict[str, object] = {
        "value": token.value,
        "token_type": token.token_type,
        "expires_at": token.expires_at,
        "grant": token.grant,
    }
    return {**found, "fields": token.fields} if token.fields else found


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
    expiry = "expiry unknown" if event.expires_at is None else f"expires {away(event.expires_at - now)}"
    return f"{at} {plain(event.grant)} token, {expiry}"
