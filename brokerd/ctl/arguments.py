# The command line: every command, its arguments and which function runs it. Of a command line that names its command
# only that one is built; the others are needed for help and completions alone.
from __future__ import annotations

import sys
from argparse import PARSER, SUPPRESS, Action, ArgumentError, ArgumentParser, HelpFormatter

from brokerd.ctl import beginnings
from brokerd.ctl.beginnings import DEFAULT_CONFIG
from brokerd.ctl.terminal import OPTIONS, Failed, plain

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

HELP_WIDTH = 100  # columns
# Which brokerd is meant: they may stand before or after every command.
WHICH = {
    "--config": ("FILE", f"the brokerd with this configuration (your own, if there is one, else {DEFAULT_CONFIG})"),
    "--socket": ("PATH", "the brokerd at this socket (BROKERD_SOCKET, else that of the configuration)"),
    "--state-dir": ("DIR", "its state directory, where that is read or written (that of the configuration)"),
}
EVERYWHERE = "--config, --socket and --state-dir may stand here too: see brokerctl --help"
MEANT = {"explain --user": "--as"}  # what people type for another option
DEFAULT_ENV = "ACCESS_TOKEN"
SHELLS = ("bash", "zsh", "fish")
EXIT_CODES = {
    0: "done",
    1: "a fault of brokerd's own",
    2: "usage or configuration",
    3: "denied or unknown grant",
    4: "unavailable, try again",
    5: "revoked or needs login",
    6: "no daemon at the socket",
}


class Formatter(HelpFormatter):
    """Help of a fixed width: asking the terminal for its own costs more than all the rest of the parsing."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=HELP_WIDTH)


class Parser(ArgumentParser):
    """argparse with the contract's errors: one line, a remedy, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise Failed(f"{message}; see {self.prog} --help")

    def _get_value(self, action: Action, arg_string: str) -> Any:
        """What was typed is not repeated: it may be a secret in the wrong place."""
        try:
            return super()._get_value(action, arg_string)
        except ArgumentError:
            raise ArgumentError(action, f"expected a {getattr(action.type, '__name__', 'value')}") from None

    def _check_value(self, action: Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise ArgumentError(action, f"expected {' or '.join(map(str, action.choices))}")


def read_arguments(words: list[str]) -> Namespace:
    """The command line as argparse has it, with `local` or `run`: the function to call. Raises Failed."""
    command = _command(words)
    command = next((name for name, other in ALIASES.items() if other == command), command)
    if command and command not in COMMANDS:
        raise Failed(f"no command {plain(command)!r}{_similar(command, COMMANDS)}; see brokerctl --help")
    program: list[str] = []
    if command == "exec" and "--" in words:
        at = words.index("--")
        words, program = words[:at], words[at + 1 :]
    parser = make_parser(command)
    arguments, left = parser.parse_known_args(words)
    if command == "exec" and not program:
        raise Failed(f"expected -- and what to run: {USAGE_OF_EXEC}")
    if left:
        raise Failed(_unexpected(left[0], command, arguments.parser if command else parser))
    if command is None:
        parser.print_help()
        raise SystemExit
    arguments.program = program
    OPTIONS[:] = [word for name in WHICH if (value := getattr(arguments, _as_name(name))) for word in (name, value)]
    return arguments


def make_parser(only: str | None = None) -> Parser:
    """The parser with every command, or only one."""
    from brokerd import __version__

    parser = Parser(
        prog="brokerctl",
        description="Fetch, watch and administer the tokens that brokerd keeps fresh.",
        epilog=f"exit codes: {', '.join(f'{code} {words}' for code, words in EXIT_CODES.items())}",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    for name, (metavar, words) in WHICH.items():
        parser.add_argument(name, metavar=metavar, help=words)
    parser.add_argument("--version", action="version", version=f"brokerctl {__version__}", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog=parser.prog)
    for name in (only,) if only else COMMANDS:
        words, fill, run = COMMANDS[name]
        command = commands.add_parser(
            name,
            aliases=(ALIASES[name],) if name in ALIASES else (),
            help=words,
            description=_sentence(words),
            epilog=EVERYWHERE,
            formatter_class=Formatter,
            allow_abbrev=False,
        )
        command.set_defaults(parser=command, local=None, run=None)
        fill(command)
        _which(command)
        command.set_defaults(**{"local" if name in LOCAL else "run": run})
    return parser


def _which(parser: ArgumentParser) -> None:
    """After the command as well: without a default, which would take the place of what stands before it."""
    for name in WHICH:
        if name not in parser._option_string_actions:
            parser.add_argument(name, default=SUPPRESS, help=SUPPRESS)


def _shown(parser: ArgumentParser, *names: str) -> None:
    """Those that a command is often given, in its own help too."""
    for name in names:
        metavar, words = WHICH[name]
        parser.add_argument(name, metavar=metavar, default=SUPPRESS, help=words)


def _as_name(option: str) -> str:
    return option.strip("-").replace("-", "_")


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def every_parser(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    """Of a parser with all its commands: the parsers of these and of their actions, by what is typed."""
    found: dict[str, ArgumentParser] = {}
    for action in parser._actions:
        if action.nargs == PARSER:
            commands: Any = action.choices
            for name, each in commands.items():
                if each in found.values():
                    continue  # by another name
                found[name] = each
                found |= {f"{name} {inner}": one for inner, one in every_parser(each).items()}
    return found


def _command(words: list[str]) -> str | None:
    """The command that is named; None where there is none, or help is asked for before it."""
    rest = iter(words)
    for word in rest:
        if word in WHICH:
            next(rest, None)
        elif word in ("-h", "--help", "--version"):
            return None
        elif not word.startswith("-"):
            return word
    return None


def _unexpected(word: str, command: str | None, parser: ArgumentParser) -> str:
    """Words for what is too much. Only options are repeated: anything else may be a secret in the wrong place."""
    see = f"see {parser.prog} --help"
    if word.startswith("-") and word != "-":
        option = word.partition("=")[0]
        if meant := MEANT.get(f"{command} {option}"):
            return f"no option {option}, did you mean {meant}?; {see}"
        known = parser._option_string_actions if command else COMMANDS  # --version is a command here
        return f"no option {plain(option)}{_similar(option if command else option.strip('-'), known)}; {see}"
    if command == "import":
        return f"expected nothing after GRANT: the refresh token is read from stdin, where nobody sees it; {see}"
    if command == "get":
        return f"expected nothing after GRANT (--refused reads the token from stdin, where nobody sees it); {see}"
    return f"expected nothing more on the command line; {see}"


def _similar(word: str, known: Any) -> str:
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1)
    return f", did you mean {found[0]}?" if found else ""


# -- the arguments of each command


def _nothing(parser: ArgumentParser) -> None:
    """It takes none."""


def _grant(parser: ArgumentParser) -> None:
    parser.add_argument("grant", metavar="GRANT", help="its name in the configuration")


def _provider(parser: ArgumentParser) -> None:
    parser.add_argument("provider", metavar="PROVIDER", help="its name in the configuration")


def _proof(parser: ArgumentParser) -> None:
    _grant(parser)
    parser.add_argument("http_method", metavar="METHOD", help="the request's method, such as GET")
    parser.add_argument("url", metavar="URL", help="the request's URL; what follows ? or # does not count")
    parser.add_argument("--nonce", metavar="N", help="the nonce that the API sent last, as DPoP-Nonce")
    parser.add_argument("--json", action="store_true", help="print the token and the proof as JSON")


def _get(parser: ArgumentParser) -> None:
    _grant(parser)
    _fetching(parser)
    words = "read from stdin a token that the API refused although it had not expired, and get another one"
    parser.add_argument("--refused", action="store_true", help=words)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print value, token_type, expires_at and grant as JSON")
    form.add_argument("--header", action="store_true", help="print the header line that the API wants")


def _exec(parser: ArgumentParser) -> None:
    parser.usage = USAGE_OF_EXEC
    _grant(parser)
    _fetching(parser)
    parser.add_argument(
        "--env", metavar="NAME", default=DEFAULT_ENV, help=f"the variable to put the token into ({DEFAULT_ENV})"
    )


def _fetching(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--min-ttl", metavar="N", type=_seconds, help="get a token that lives for N seconds at least (0)"
    )
    parser.add_argument(
        "--wait", metavar="N", type=_seconds, help="wait N seconds at most where the provider has to be asked (10)"
    )
    parser.add_argument("--scope", metavar="S", action="append", help="get a token for this scope; may be repeated")
    parser.add_argument("--audience", metavar="A", help="get a token for this audience")
    parser.add_argument("--resource", metavar="R", help="get a token for this resource, a URI")


def _status(parser: ArgumentParser) -> None:
    parser.add_argument("grants", metavar="GRANT", nargs="*", help="show these only, of all that you may see")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object, on one line")
    form.add_argument("--names", action="store_true", help="print the grants' names alone, one a line")
    often = parser.add_mutually_exclusive_group()
    often.add_argument("--watch", action="store_true", help="look again every second")
    often.add_argument("--verify", action="store_true", help="ask the providers whether they agree (RFC 7662)")


def _explain(parser: ArgumentParser) -> None:
    _grant(parser)
    parser.add_argument("--pid", metavar="N", type=_number, help="for this process instead of yourself")
    parser.add_argument(
        "--as", metavar="USER", dest="user", help="for a process of this user, which is further described by:"
    )
    parser.add_argument("--unit", metavar="UNIT", help="its unit, such as portal.service")
    parser.add_argument("--user-unit", metavar="UNIT", help="its unit of its user's own systemd")
    parser.add_argument("--slice", metavar="SLICE", help="the slice that its unit is in")
    parser.add_argument("--container", metavar="ID", help="the whole id of its container")
    parser.add_argument("--exe", metavar="FILE", help="the file that it executes")
    parser.add_argument("--sha256", metavar="HEX", help="the SHA-256 of that file")
    parser.add_argument("--json", action="store_true", help="print one JSON object, on one line")


def _revoke(parser: ArgumentParser) -> None:
    _grant(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    words = "do not tell the provider, for one that cannot be told or is gone: tokens live on there until they expire"
    parser.add_argument("--local", dest="forget_only", action="store_true", help=words)


def _login(parser: ArgumentParser) -> None:
    _grant(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask if somebody else logs in than the last time")
    parser.add_argument("--browser", action="store_true", help="open a browser, also where none seems to be at hand")
    parser.add_argument(
        "--port", metavar="N", type=_port, help="have the browser come back to this port, for ssh -L (a free one)"
    )
    parser.add_argument("--no-qr", action="store_true", help="draw no QR code")
    parser.add_argument(
        "--json", action="store_true", help="print what is asked, and how it ends, as JSON, one object a line"
    )


def _watch(parser: ArgumentParser) -> None:
    parser.add_argument("grants", metavar="GRANT", nargs="+", help="their names in the configuration")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--values", action="store_true", help="print the tokens themselves, one a line")
    form.add_argument(
        "--json", action="store_true", help="print what happens as JSON, tokens included, one object a line"
    )


def _doctor(parser: ArgumentParser) -> None:
    _shown(parser, "--config")
    parser.add_argument("--offline", action="store_true", help="ask no provider anything")
    parser.add_argument("--json", action="store_true", help="print one JSON object, on one line")


def _unlock(parser: ArgumentParser) -> None:
    parser.add_argument("--new", action="store_true", help="choose the passphrase of a new store")


def _key(parser: ArgumentParser) -> None:
    parser.add_argument("what", metavar="rotate", choices=("rotate",), help="to the key that [daemon] key names now")
    parser.add_argument(
        "--full", action="store_true", help="make a new data key too, and seal everything anew under it"
    )
    parser.add_argument("--passphrase", action="store_true", help="to a passphrase, which you choose now")


def _restore(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="what brokerctl backup has written")
    _shown(parser, "--state-dir")
    parser.add_argument("--force", action="store_true", help="where a store lies already, keep it under another name")


def _keygen(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="where to write it; nothing may be there yet")


def _actions(parser: ArgumentParser, known: dict[str, str]) -> Iterator[tuple[str, ArgumentParser]]:
    """A command's own commands: each with its parser, which is still to be filled."""
    actions = parser.add_subparsers(
        dest="action", metavar="|".join(known), title="actions", required=True, prog=parser.prog
    )
    for name, words in known.items():
        action = actions.add_parser(
            name,
            help=words,
            description=_sentence(words),
            epilog=EVERYWHERE,
            formatter_class=Formatter,
            allow_abbrev=False,
        )
        action.set_defaults(parser=action)
        yield name, action
        _which(action)


def _recipe(parser: ArgumentParser) -> None:
    for name, action in _actions(parser, RECIPE_ACTIONS):
        if name != "list":
            action.add_argument("recipe", metavar="RECIPE", help="a file that ends in .toml, or a name from the list")
        if name == "try":
            _try(action)


def _try(parser: ArgumentParser) -> None:
    parser.add_argument("--base-url", metavar="URL", required=True, help="where the provider's API is")
    parser.add_argument(
        "--credentials", metavar="FILE", help='a TOML file, a line for each, such as password = { file = "…" }'
    )
    parser.add_argument(
        "--setting", metavar="NAME=VALUE", action="append", default=[], help="a setting of the recipe; may be repeated"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="certificates (PEM) to trust in the place of the system's")
    parser.add_argument(
        "--operation", choices=("issue", "renew", "revoke"), default="issue", help="what to ask for (issue)"
    )


def _audit(parser: ArgumentParser) -> None:
    for name, action in _actions(parser, AUDIT_ACTIONS):
        _shown(action, "--config")
        if name == "tail":
            _tail(action)


def _tail(parser: ArgumentParser) -> None:
    parser.add_argument("-n", dest="number", metavar="N", type=_number, default=20, help="how many (20)")
    parser.add_argument("--follow", action="store_true", help="go on with those that come")
    parser.add_argument("--grant", metavar="GRANT", help="about this grant only")
    parser.add_argument(
        "--event", metavar="NAME", help="of this event, or with this outcome, such as renewed or denied"
    )
    parser.add_argument("--caller", metavar="USER|UID|PID", help="of this caller only")
    parser.add_argument("--json", action="store_true", help="print the lines as they lie there")


def _completion(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, nargs="?", default="bash", help="the shell's name (bash)")


def _number(text: str) -> int:
    if (number := int(text)) < 0:
        raise ValueError
    return number


_number.__name__ = "number"  # argparse's word for it


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError
    return int(seconds) if seconds.is_integer() else seconds


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65_536:
        raise ValueError
    return port


_port.__name__ = "port number"
_seconds.__name__ = "number of seconds"  # argparse's word for it


def _later(module: str, function: str) -> Callable[..., int]:
    """A function of a module in this package that is imported when it is called."""

    def run(*arguments: Any) -> int:
        __import__(f"brokerd.ctl.{module}")
        code: int = getattr(sys.modules[f"brokerd.ctl.{module}"], function)(*arguments)
        return code

    return run


USAGE_OF_EXEC = "brokerctl exec GRANT [--env NAME] [OPTION]… -- CMD …"
RECIPE_ACTIONS = {
    "list": "list the recipes that there are",
    "show": "print a recipe, to copy it",
    "check": "find the mistakes in a recipe, and say what it does",
    "try": "ask the real server once, and show what was sent, came and was read",
}
AUDIT_ACTIONS = {
    "verify": "say whether anybody changed, removed or reordered a line",
    "tail": "print the newest entries",
}
LOCAL = (
    *("add", "audit", "completion", "doctor", "install", "keygen", "recipe", "restore", "uninstall"),
)  # need no daemon
ALIASES = {"add": "init"}  # a command, and its other name
COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None], Callable[..., int]]] = {
    "get": ("print a token and a newline, nothing else", _get, _later("fetch", "get")),
    "exec": ("run a command with a token in its environment", _exec, _later("fetch", "execute")),
    "proof": (
        "print the headers of one request with a token that is bound to a key (DPoP)",
        _proof,
        _later("fetch", "proof"),
    ),
    "watch": ("print a line whenever a grant has a new token, or none any more", _watch, _later("fetch", "watch")),
    "status": ("show states, expiries, next renewals and last errors", _status, _later("status", "status")),
    "explain": (
        "say whether a process gets a token, by which rule, or why not",
        _explain,
        _later("explain", "explain"),
    ),
    "refresh": ("renew a token now, and try a misconfigured grant again", _grant, _later("change", "refresh")),
    "revoke": ("end a grant: serve nothing more, tell the provider", _revoke, _later("change", "revoke")),
    "login": ("log in for a grant, as a person, with a browser here or elsewhere", _login, _later("login", "login")),
    "import": ("give a grant a refresh token, read from stdin", _grant, _later("change", "import_token")),
    "reload": ("have brokerd read its configuration again, all or nothing", _nothing, _later("change", "reload")),
    "forget": ("delete what is stored of a grant that is configured no more", _grant, _later("change", "forget")),
    "adopt": ("let a store that was restored or copied be used here", _nothing, _later("change", "adopt")),
    "trust": ("agree to the endpoints that a provider's metadata names now", _provider, _later("change", "trust")),
    "add": (
        "add a provider, a grant and a rule; install first where nothing is configured",
        beginnings.add,
        _later("add", "add"),
    ),
    "audit": ("read the audit log, or say whether it was changed", _audit, _later("audit", "audit")),
    "install": (
        "put units, pages, user, key and an example configuration in place",
        beginnings.install,
        _later("install", "install"),
    ),
    "uninstall": ("take away what install put there", beginnings.uninstall, _later("install", "uninstall")),
    "doctor": ("look at what brokerd stands on, and say what mends it", _doctor, _later("doctor", "doctor")),
    "lock": ("drop keys and tokens from memory, and serve nothing until unlock", _nothing, _later("keys", "lock")),
    "unlock": ("read the key again, or ask for the passphrase, and serve again", _unlock, _later("keys", "unlock")),
    "key": ("replace the key that the store is sealed with", _key, _later("keys", "rotate")),
    "backup": ("write a copy of the store, sealed as it is, while brokerd runs", _keygen, _later("backup", "backup")),
    "restore": ("put a backup into a state directory that no brokerd uses", _restore, _later("backup", "restore")),
    "keygen": ("make a key file, never over an existing one", _keygen, _later("local", "keygen")),
    "recipe": ("list, show, check and try recipes", _recipe, _later("recipe", "recipe")),
    "completion": ("print a completion script for a shell", _completion, _later("completion", "completion")),
    "version": ("print the versions of brokerctl and brokerd", _nothing, _later("local", "version")),
}
