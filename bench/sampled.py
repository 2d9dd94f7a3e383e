# brokerd with a look at its stack after each millisecond of computing: `python -m bench.sampled FILE ARGUMENTS`. How
# often each function was at work, and how often anywhere on the stack, is written to FILE as JSON at the end.
from __future__ import annotations

import atexit
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

from brokerd.daemon.main import main

EACH = 0.001  # seconds of computing between two looks


class Samples:
    """`at_work`: by line; `on_stack`: by function."""

    def __init__(self) -> None:
        self.at_work: Counter[tuple[CodeType, int]] = Counter()
        self.on_stack: Counter[CodeType] = Counter()

    def look(self, _number: int, frame: FrameType | None) -> None:
        if frame is not None:
            self.at_work[frame.f_code, frame.f_lineno] += 1
        found = set()
        while frame is not None:
            found.add(frame.f_code)
            frame = frame.f_back
        self.on_stack.update(found)

    def write(self, path: Path) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        lines = [[_name(code), line, number] for (code, line), number in self.at_work.items()]
        functions: Counter[str] = Counter()
        for code, number in self.on_stack.items():
            functions[_name(code)] += number
        path.write_text(json.dumps({"at_work": lines, "on_stack": functions}))


def _name(code: CodeType) -> str:
    """The file, from the package on, and the function."""
    parts = Path(code.co_filename).parts
    start = next((at for at, part in enumerate(parts) if part in ("brokerd", "brokerd_client", "trio")), -1)
    return f"{'/'.join(parts[start:])} {code.co_qualname}"


if __name__ == "__main__":
    samples = Samples()
    atexit.register(samples.write, Path(sys.argv.pop(1)))
    signal.signal(signal.SIGPROF, samples.look)
    signal.setitimer(signal.ITIMER_PROF, EACH, EACH)
    main()
