"""Fuzzing: a property of arbitrary bytes for each subject, driven by hypothesis in the suite and by `make fuzz`."""
# Names the subjects and finds their seeds. A subject's module is imported late: atheris instruments what it imports.

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
SUBJECTS = ("wire", "client", "recipes", "answers", "configuration", "http_client", "http_server", "proxied", "etcd")


def check_of(subject: str) -> Callable[[bytes], None]:
    """The subject's property: raises on the bytes that violate it."""
    check: Callable[[bytes], None] = importlib.import_module(f"tests.stress.fuzz.{subject}").check
    return check


def seeds(subject: str) -> list[Path]:
    """The committed inputs, each worth a look: what reaches deep, and what was once found."""
    return sorted((CORPUS / subject).iterdir())
