# The state diagram in docs/architecture.md, made from the table in brokerd/core/grant/state.py.
# `python docs/diagram.py` writes it; `--check` only says whether it is as the table says, and ends with 1 if not.
from __future__ import annotations

import sys
from pathlib import Path

from brokerd.core.grant.state import EVERYWHERE, MOVES, State

PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- states: made by docs/diagram.py -->\n", "<!-- states: end -->\n"


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    renewed = with_diagram(page)
    if "--check" in sys.argv[1:]:
        sys.exit(
            None if page == renewed else f"{PAGE}: not as brokerd/core/grant/state.py says; run: python docs/diagram.py"
        )
    PAGE.write_text(renewed, encoding="utf-8")


def with_diagram(page: str) -> str:
    """The page with the diagram as it should be. Raises ValueError where it has no place for one."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE}: expected the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}{diagram()}{END}{after}"


def diagram() -> str:
    """The table as a Mermaid state diagram, in a code block."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), targets in MOVES.items():
        for target, label in _labelled(targets, str(event)):
            arrows.setdefault((str(state), str(target)), []).append(label)
    for event, targets in EVERYWHERE.items():
        for target, label in _labelled(targets, str(event)):
            arrows.setdefault(("every", str(target)), []).append(label)
    lines = [f"    {start} --> {target}: {', '.join(labels)}" for (start, target), labels in arrows.items()]
    head = ["    [*] --> ready", '    state "every state" as every']
    return "\n".join(["```mermaid", "stateDiagram-v2", *head, *lines, "```", ""])


def _labelled(targets: tuple[State, ...], event: str) -> list[tuple[State, str]]:
    """Where an event leads. Of two states, the first is for a grant that can issue without a person."""
    if len(targets) == 1:
        return [(targets[0], event)]
    return [(targets[0], f"{event} (can issue)"), (targets[-1], f"{event} (cannot issue)")]


if __name__ == "__main__":
    main()
