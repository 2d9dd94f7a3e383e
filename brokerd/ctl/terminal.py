# What brokerctl's commands have in common: how they write, complain, ask and put times into words.
from __future__ import annotations

import os
import sys

OPTIONS: list[str] = []  # that say which brokerd is meant, as they were given: --config FILE, --socket PATH


class Failed(Exception):
    """The command ends with this line on stderr and this exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def write(line: str) -> None:
    """One line to stdout, in UTF-8 whatever the locale is: a token is bytes that a program reads."""
    if sys.stdout is None:  # closed by who started us
        raise BrokenPipeError
    try:
        sys.stdout.buffer.write(line.encode() + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise Failed(f"cannot write the output: {error.strerror}; look at where it goes") from None


def drop_output() -> None:
    """So that the interpreter does not fail once more, loudly, when it flushes at its end."""
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
    """The line, with this call's own options in every command of brokerctl that it names: so the command means the
    same brokerd."""
    if not OPTIONS:
        return line
    from re import sub
    from shlex import join

    options = join(OPTIONS)
    return sub(r"\bbrokerctl (?=[a-z])", lambda found: f"{found[0]}{options} ", line)


def plain(text: str) -> str:
    """Text from elsewhere as one line that cannot steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def ask(question: str) -> bool:
    """Whether the person at the terminal says yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def span(seconds: float) -> str:
    """A length of time in its two largest units: 3m 20s."""
    left = int(abs(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def away(seconds: float) -> str:
    """How far a moment is from now: in 3m 20s, 3m 20s ago."""
    return f"in {span(seconds)}" if seconds >= 0 else f"{span(seconds)} ago"
