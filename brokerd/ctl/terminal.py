# What all commands of brokerctl use: writing lines, complaining, asking, and times in words.
from __future__ import annotations

import os
import sys

OPTIONS: list[str] = []  # which brokerd is meant, as the command line said: --config FILE, --socket PATH


class Failed(Exception):
    """The command ends with this line on stderr and this exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def write(line: str) -> None:
    """One line to stdout, in UTF-8 in every locale: a token is bytes that a program reads."""
    if sys.stdout is None:  # whoever started us closed it
        raise BrokenPipeError
    try:
        sys.stdout.buffer.write(line.encode() + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise Failed(f"cannot write to standard output: {error.strerror}; check where it goes") from None


def write_json(value: object) -> None:
    """One line of JSON to stdout. It is ASCII, so no control character reaches the terminal."""
    import json

    write(json.dumps(value))


def drop_output() -> None:
    """So that the interpreter's own flush at exit does not fail again and print a traceback."""
    if sys.stdout is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def complain(line: str) -> None:
    """One line to stderr."""
    line = called(line)
    if sys.stderr is not None:  # print would take stdout instead
        print(f"brokerctl: {line}", file=sys.stderr)


def called(line: str) -> str:
    """The line, with OPTIONS added to every command of brokerctl in it, so that the command means the same brokerd."""
    if not OPTIONS:
        return line
    from re import sub
    from shlex import join

    options = join(OPTIONS)
    return sub(r"\bbrokerctl (?=[a-z])", lambda found: f"{found[0]}{options} ", line)


def plain(text: str) -> str:
    """Foreign text as one line without control characters, which could change the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def ask(question: str) -> bool:
    """Whether the person at the terminal answers yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def at_terminal() -> bool:
    """Whether there is a person at a terminal who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def type_unseen(prompt: str) -> str:
    """What the person at the terminal types. It is not shown."""
    from getpass import getpass

    try:
        return getpass(prompt)
    except EOFError:
        return ""


def decoded(data: bytes, what: str) -> str:
    """A secret from stdin, as text without the line break at its end. Raises Failed, without the secret."""
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Failed(f"expected {what} in UTF-8 on stdin, found other bytes") from None


def span(seconds: float) -> str:
    """A length of time in its two largest units: 3m 20s."""
    left = int(abs(seconds))
    if left < 60:
        return f"{left}s"
    if left < 3600:
        return f"{left // 60}m {left % 60}s"
    if left < 86400:
        return f"{left // 3600}h {left % 3600 // 60}m"
    return f"{left // 86400}d {left % 86400 // 3600}h"


def away(seconds: float) -> str:
    """How far a moment is from now: in 3m 20s, 3m 20s ago."""
    return f"in {span(seconds)}" if seconds >= 0 else f"{span(seconds)} ago"
