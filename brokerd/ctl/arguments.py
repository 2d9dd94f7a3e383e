# Reading the command line, by the rows of command_table.py. If the command line names its command, only that command's
# parser is built; the others are needed for help, completions and manual pages alone.
from __future__ import annotations

from argparse import PARSER, SUPPRESS, Action, ArgumentError, ArgumentParser, HelpFormatter
from functools import partial

from brokerd.ctl.command_table import COMMANDS, USAGE_OF_EXEC, WHICH
from brokerd.ctl.terminal import OPTIONS, Failed, plain

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any, NoReturn

HELP_WIDTH = 100  # columns
EVERYWHERE = "--config, --socket and --state-dir may also be given: see brokerctl --help"
MEANT = {"explain --user": "--as"}  # what people type, and the option that they mean
EXIT_CODES = {
    0: "done",
    1: "internal error",
    2: "wrong usage or configuration",
    3: "denied or unknown grant",
    4: "unavailable, try again",
    5: "revoked or needs login",
    6: "no brokerd at the socket",
}


# A fixed width: asking the terminal for its width takes longer than all the rest of the parsing.
FORMATTER = partial(HelpFormatter, width=HELP_WIDTH)


class Parser(ArgumentParser):
    """argparse with brokerctl's errors: one line with a remedy, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise Failed(f"{message}; see {self.prog} --help")

    def _get_value(self, action: Action, arg_string: str) -> Any:
        """The error does not repeat what was typed: it may be a secret in the wrong place."""
        try:
            return super()._get_value(action, arg_string)
        except ArgumentError:
            raise ArgumentError(action, f"expected a {getattr(action.type, '__name__', 'value')}") from None

    def _check_value(self, action: Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise ArgumentError(action, f"expected one of {', '.join(map(str, action.choices))}")


def read_arguments(words: list[str]) -> Namespace:
    """The command line as argparse reads it, with `row`: the command's row in COMMANDS. Raises Failed."""
    command = _command(words)
    command = next((name for name, row in COMMANDS.items() if command and row.other_name == command), command)
    if command and command not in COMMANDS:
        raise Failed(f"no command {plain(command)!r}{_similar(command, COMMANDS)}; see brokerctl --help")
    program: list[str] = []
    if command == "exec" and "--" in words:
        at = words.index("--")
        words, program = words[:at], words[at + 1 :]
    parser = make_parser(command)
    arguments, left = parser.parse_known_args(words)
    if command == "exec" and not program:
        raise Failed(f"expected -- and the command to run: {USAGE_OF_EXEC}")
    if left:
        raise Failed(_unexpected(left[0], command, arguments.parser if command else parser))
    if command is None:
        parser.print_help()
        raise SystemExit
    arguments.program = program
    given = ((name, getattr(arguments, name.strip("-").replace("-", "_"))) for name in WHICH)
    OPTIONS[:] = [word for option in given if option[1] for word in option]
    return arguments


def make_parser(only: str | None = None) -> Parser:
    """The parser with every command, or with one."""
    from brokerd import __version__

    parser = Parser(
        prog="brokerctl",
        description="Fetch, watch and administer the tokens that brokerd keeps fresh.",
        epilog=f"exit codes: {', '.join(f'{code} {words}' for code, words in EXIT_CODES.items())}",
        formatter_class=FORMATTER,
        allow_abbrev=False,
    )
    for name, (metavar, words) in WHICH.items():
        parser.add_argument(name, metavar=metavar, help=words)
    parser.add_argument("--version", action="version", version=f"brokerctl {__version__}", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog=parser.prog)
    for name in (only,) if only else COMMANDS:
        row = COMMANDS[name]
        command = _add_command(commands, name, row.words, row.arguments, row.other_name)
        command.usage = row.usage
        command.set_defaults(row=row)
        if row.actions:
            metavar = "|".join(row.actions)
            actions = command.add_subparsers(
                dest="action", metavar=metavar, title="actions", required=True, prog=command.prog
            )
            for inner, (words, arguments) in row.actions.items():
                _add_command(actions, inner, words, arguments)
    return parser


def _add_command(commands: Any, name: str, words: str, arguments: Any, other_name: str | None = None) -> ArgumentParser:
    """The parser of a command, or of a command's command."""
    parser: ArgumentParser = commands.add_parser(
        name,
        aliases=(other_name,) if other_name else (),
        help=words,
        description=f"{words[:1].upper()}{words[1:]}.",
        epilog=EVERYWHERE,
        formatter_class=FORMATTER,
        allow_abbrev=False,
    )
    parser.set_defaults(parser=parser)
    for argument in arguments:
        argument.add_to(parser)
    for option in WHICH:  # without a default, which would replace what was given before the command
        if option not in parser._option_string_actions:
            parser.add_argument(option, default=SUPPRESS, help=SUPPRESS)
    return parser


def every_parser(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    """The parsers of all commands and of their actions, by what is typed. `parser` has all commands."""
    found: dict[str, ArgumentParser] = {}
    for action in parser._actions:
        if action.nargs == PARSER:
            commands: Any = action.choices
            for name, each in commands.items():
                if each in found.values():
                    continue  # its other name
                found[name] = each
                found |= {f"{name} {inner}": one for inner, one in every_parser(each).items()}
    return found


def _command(words: list[str]) -> str | None:
    """The command that is named. None if there is none, or if help is asked for before it."""
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
    """The error for a word too many. It repeats options only: anything else may be a secret in the wrong place."""
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
