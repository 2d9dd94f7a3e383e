# The completion command: prints a script that makes a shell complete commands, options and their values. shtab makes it
# from the command line's definition. COMPLETED says how to complete each METAVAR, the same in all commands.
from __future__ import annotations

from argparse import REMAINDER, Namespace
from typing import Any

import shtab

from brokerd.ctl.arguments import every_parser, make_parser
from brokerd.ctl.terminal import write


def completion(arguments: Namespace) -> int:
    """Print the script."""
    write(completion_script(arguments.shell).rstrip("\n"))
    return 0


def completion_script(shell: str) -> str:
    """The text of the script for one of SHELLS."""
    files: dict[str, Any] = {"FILE": shtab.FILE, "PATH": shtab.FILE, "DIR": shtab.DIRECTORY}
    parser = make_parser()
    every = every_parser(parser)
    every["exec"].add_argument("program", metavar="CMD", nargs=REMAINDER)  # read_arguments only looks for --
    for each in (parser, *every.values()):
        for action in each._actions:
            if found := (files | COMPLETED).get(str(action.metavar)):
                action.complete = found  # type: ignore[attr-defined]
    script = shtab.complete(parser, shell)
    if shell == "zsh":  # arguments that may be repeated: any number of times, with options between them
        for form in ('"(*)::', '"(*):', '"(-)*::'):
            script = script.replace(form, '"*:')
    return script


# If the daemon does not answer within a second, nothing is offered and nothing is said, because somebody is typing. A
# grant's name reaches the shell only if it is a plain word.
WORDS = "2>/dev/null | grep -o '^[A-Za-z0-9][A-Za-z0-9._-]*'"
GRANTS = f"timeout 3 brokerctl status --names {WORDS}"
RECIPES = f"brokerctl recipe list {WORDS}"
PROGRAM_IN_BASH = """_brokerctl_programs_and_files() {
  local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
  if [[ " ${words[*]} " == *" -- "* ]]; then compgen -c -- "$1"; compgen -f -- "$1"; else compgen -W -- -- "$1"; fi
}"""
PROGRAM_IN_ZSH = """_brokerctl_program() {
  local at=${words[(i)--]}
  if (( at < CURRENT )); then shift $at words; (( CURRENT -= at )); _normal; else compadd -- --; fi
}"""
PROGRAM_IN_FISH = """function _brokerctl_program
  set -l words (commandline -opc) (commandline -ct)
  if set -l at (contains -i -- -- $words)
    complete -C (string join ' ' -- $words[(math $at + 1)..-1])
  else
    echo --
  end
end"""
COMPLETED: dict[str, dict[str, Any]] = {
    "GRANT": {
        "bash": "_brokerctl_grants",
        "zsh": "_brokerctl_grants",
        "fish": f"({GRANTS})",
        "preamble": {
            "bash": f'_brokerctl_grants() {{ compgen -W "$({GRANTS})" -- "$1"; }}',
            "zsh": f"_brokerctl_grants() {{ compadd -- $({GRANTS}) }}",
        },
    },
    "RECIPE": {
        "bash": "_brokerctl_recipes_and_files",
        "zsh": "_brokerctl_recipes",
        "fish": f"({RECIPES}; __fish_complete_suffix .toml)",
        "preamble": {
            "bash": f'_brokerctl_recipes_and_files() {{ compgen -W "$({RECIPES})" -- "$1"; compgen -f -- "$1"; }}',
            "zsh": f'_brokerctl_recipes() {{ compadd -- $({RECIPES}); _files -g "*.toml" }}',
        },
    },
    "CMD": {
        "bash": "_brokerctl_programs_and_files",
        "zsh": "_brokerctl_program",
        "fish": "(_brokerctl_program)",
        "preamble": {"bash": PROGRAM_IN_BASH, "zsh": PROGRAM_IN_ZSH, "fish": PROGRAM_IN_FISH},
    },
    "USER": {"bash": "_brokerctl_users", "zsh": "_users", "fish": "(__fish_complete_users)"}
    | {"preamble": {"bash": '_brokerctl_users() { compgen -u -- "$1"; }'}},
}
