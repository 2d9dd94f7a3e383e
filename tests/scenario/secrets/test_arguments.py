# Every user can read a command line (law 11): each place that starts a program is listed here, with what it says there.
from __future__ import annotations

import ast
from pathlib import Path

import brokerd

STARTS = {"subprocess", "webbrowser", "pty"}  # modules
EXECUTES = ("exec", "spawn", "posix_spawn", "system", "popen")  # of os and trio
KNOWN = {
    "ctl/commands/tokens.py": "brokerctl exec: the command is the caller's own words; the token is in the environment",
    "ctl/browser/handoff.py": "a browser: the path of a file; and the name of a desktop setting",
    "edge/files/secret_sources.py": "the operator's own command, as the configuration has it",
    "edge/system/commands.py": "on_change of a file with a token: the operator's own command, or systemctl and a unit",
    "edge/systemd/service_manager.py": "systemd's programs: names and paths; a secret goes by stdin",
    "edge/systemd/units.py": "systemctl show: names of units and properties",
}


def starts_programs(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                if any(each.name in STARTS for each in names):
                    return True
            case ast.ImportFrom(module=str(module)):
                if module in STARTS:
                    return True
            case ast.Attribute(value=ast.Name(id="os"), attr=name):
                if name.startswith(EXECUTES):
                    return True
            case ast.Attribute(
                attr="run_process" | "open_process" | "create_subprocess_exec" | "create_subprocess_shell"
            ):
                return True
    return False


def test_every_place_that_starts_a_program_is_known_and_puts_no_secret_into_its_arguments() -> None:
    folder = Path(brokerd.__file__).parent
    found = {
        str(file.relative_to(folder)) for file in folder.rglob("*.py") if starts_programs(ast.parse(file.read_text()))
    }
    assert found == KNOWN.keys()
