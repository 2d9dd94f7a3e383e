# python -m tests.stress.fuzz: run the checks under atheris for a while, or one again on an input that was found.
from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.stress.fuzz import CORPUS, SUBJECTS, check_of

ROOT = Path(__file__).parents[3]
WORDS = Path(__file__).parent / "words"  # of each subject, as dictionaries of libFuzzer
BUILD = ROOT / "build" / "fuzz"  # ignored by git: what grew, and what was found
INSTRUMENTED = ["brokerd", "brokerd_client", "h11"]
LONGEST = 4096  # bytes of an input
SLOWEST = 20  # seconds for one input; beyond that it counts as a finding
MEMORY = 2048  # MiB of the whole process
PROGRESS = re.compile(r"^#(\d+)\s+(\w+) .*?cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.stress.fuzz", description=__doc__)
    made.add_argument("subject", nargs="?", choices=SUBJECTS, help="this one alone (default: all)")
    made.add_argument("input", nargs="?", type=Path, help="check this input once, without atheris")
    made.add_argument("--seconds", type=int, default=60, help="for each subject (default: %(default)s)")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (default: %(default)s)")
    made.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the subject's own process
    arguments = made.parse_args()
    if arguments.input:
        check_of(arguments.subject)(arguments.input.read_bytes())
        print(f"{arguments.subject}: {arguments.input} violates nothing")
        return 0
    if arguments.here:
        fuzz(arguments.subject, arguments.seconds)
    with ThreadPoolExecutor(arguments.jobs) as threads:
        subjects = [arguments.subject] if arguments.subject else SUBJECTS
        runs = list(threads.map(lambda subject: run(subject, arguments.seconds), subjects))
    print(f"{sum(each.executions for each in runs)} executions, {sum(len(each.found) for each in runs)} findings")
    return 1 if any(each.failed for each in runs) else 0


@dataclass(frozen=True)
class Run:
    """What a subject's process said."""

    executions: int
    failed: bool
    found: list[Path]


def run(subject: str, seconds: int) -> Run:
    """Fuzz a subject in a process of its own, and say what came of it."""
    folder = BUILD / subject
    findings = folder / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    before, began = set(findings.iterdir()), time.monotonic()
    command = [sys.executable, "-m", "tests.stress.fuzz", subject, "--here", "--seconds", str(seconds)]
    done = subprocess.run(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace"
    )
    (folder / "log").write_text(done.stderr)
    progress = PROGRESS.findall(done.stderr)
    first = next((each for each in progress if each[1] == "INITED"), None)
    found = sorted(set(findings.iterdir()) - before)
    executions = int(progress[-1][0]) if progress else 0
    print(
        f"{subject}: {executions} executions in {time.monotonic() - began:.0f} s; {growth(first, progress)}", flush=True
    )
    for path in found:
        relative = path.relative_to(ROOT)
        print(f"  FOUND {relative}\n  again: .venv/bin/python -m tests.stress.fuzz {subject} {relative}", flush=True)
    failed = done.returncode != 0
    if failed and not found:
        print(
            f"  FAILED with {done.returncode}; the end of {(folder / 'log').relative_to(ROOT)}:\n{done.stderr[-2000:]}"
        )
    return Run(executions, failed, found)


def growth(first: tuple[str, ...] | None, progress: list[tuple[str, ...]]) -> str:
    if first is None:
        return "it did not come beyond its seeds"
    last = progress[-1]
    return ", ".join(f"{name} {first[n]} → {last[n]}" for n, name in ((2, "coverage"), (3, "features"), (4, "corpus")))


def fuzz(subject: str, seconds: int) -> None:
    """Never comes back: libFuzzer ends the process, with 0 or the code of a finding."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        check = check_of(subject)
    folder = BUILD / subject
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    words = WORDS / subject
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": SLOWEST,
        "rss_limit_mb": MEMORY,
        "artifact_prefix": f"{folder / 'findings'}/",
    } | ({"dict": words} if words.exists() else {})
    given = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *given, str(corpus), str(CORPUS / subject)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
