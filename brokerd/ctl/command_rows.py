# What the rows of command_table.py are made of: a command, its arguments, and the kinds of values that they take.
from __future__ import annotations

import gc
from importlib import import_module

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from typing import Any


class Argument:
    """What argparse's add_argument takes."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.names, self.options = names, options

    def add_to(self, parser: Any) -> None:
        parser.add_argument(*self.names, **self.options)


class OneOf:
    """Arguments of which at most one may be given, or exactly one if that is `required`."""

    def __init__(self, *arguments: Argument, required: bool = False) -> None:
        self.arguments, self.required = arguments, required

    def add_to(self, parser: Any) -> None:
        group = parser.add_mutually_exclusive_group(required=self.required)
        for each in self.arguments:
            each.add_to(group)


class Command:
    """One row. `words` is the help. `function` is MODULE.FUNCTION in brokerd.ctl.commands, imported when the command
    runs. If the command `needs_daemon`, its first argument is a Broker. `actions` are commands of this command."""

    def __init__(
        self,
        words: str,
        function: str,
        *arguments: Argument | OneOf,
        needs_daemon: bool = True,
        other_name: str | None = None,
        usage: str | None = None,
        actions: dict[str, tuple[str, tuple[Argument | OneOf, ...]]] | None = None,
    ) -> None:
        self.words, self.function, self.arguments = words, function, arguments
        self.needs_daemon, self.other_name, self.usage, self.actions = needs_daemon, other_name, usage, actions or {}

    def run(self, *arguments: Any) -> int:
        name, _, function = self.function.partition(".")
        gc.disable()  # what an import makes stays: it is not searched for garbage again and again
        try:
            module = import_module(f"brokerd.ctl.commands.{name}")
        finally:
            gc.enable()
        code: int = getattr(module, function)(*arguments)
        return code


# -- kinds of arguments


def option(name: str, metavar: str, words: str, **more: Any) -> Argument:
    return Argument(name, metavar=metavar, help=words, **more)


def several(name: str, metavar: str, words: str) -> Argument:
    return Argument(name, metavar=metavar, action="append", default=[], help=f"{words}; may be repeated")


def flag(name: str, words: str, **more: Any) -> Argument:
    return Argument(name, action="store_true", help=words, **more)


def number(text: str) -> int:
    if (found := int(text)) < 0:
        raise ValueError
    return found


def port(text: str) -> int:
    if not 0 < (found := int(text)) < 65_536:
        raise ValueError
    return found


def seconds(text: str) -> float:
    if not 0 <= (found := float(text)) < float("inf"):
        raise ValueError
    return int(found) if found.is_integer() else found


# What argparse's errors call them.
port.__name__ = "port number"
seconds.__name__ = "number of seconds"
