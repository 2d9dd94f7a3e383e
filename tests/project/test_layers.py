# Holds the layers of docs/architecture.md: every import of brokerd and brokerd_client, read with ast, against a table.
from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"brokerd": ROOT / "brokerd", "brokerd_client": ROOT / "client" / "brokerd_client"}

# What pure code may import of the world: values and arithmetic. No sockets, files, clocks, randomness, threads, trio.
PURE = frozenset(
    {
        *(
            "__future__",
            "base64",
            "bisect",
            "collections",
            "contextlib",
            "dataclasses",
            "datetime",
            "difflib",
            "email.utils",
        ),
        *("enum", "fnmatch", "functools", "hashlib", "heapq", "hmac", "itertools", "json", "math", "re", "shlex"),
        *("binascii", "struct", "typing", "unicodedata", "urllib.parse"),
    }
)
SEALING = frozenset({"cryptography.exceptions", "cryptography.hazmat.primitives.ciphers.aead"})
SIGNING = frozenset({"jwt", *(f"cryptography.hazmat.primitives.{each}" for each in ("asymmetric", "serialization"))})
STDLIB = frozenset(sys.stdlib_module_names)
IMPURE_CALLS = frozenset({"open", "input", "print", "exec", "eval", "compile", "breakpoint", "__import__"})
CLOCK_METHODS = frozenset({"now", "utcnow", "today", "fromtimestamp", "localtime", "gmtime", "time"})


@dataclass(frozen=True)
class Layer:
    """A package or module, and what of ours it may import besides itself. `world`: the other modules that it may
    import (a package stands for all that is in it), None: any."""

    name: str
    ours: tuple[str, ...] = ()
    world: frozenset[str] | None = None


CORE, DIALECTS, EDGE, CLIENT = "brokerd.core", "brokerd.dialects", "brokerd.edge", "brokerd_client"
CONFIG, BROKER, SERVER, SETUP = "brokerd.config", "brokerd.broker", "brokerd.server", "brokerd.setup"
USE_CASES = (CORE, DIALECTS, CONFIG, "brokerd.telemetry")  # config's types: the settings as checked values
BELOW_EXCHANGES = (*USE_CASES, f"{BROKER}.provider", f"{BROKER}.downscoped", f"{BROKER}.live_grant")
SCHEDULING = tuple(f"{BROKER}.{each}" for each in ("grant_registry", "planner", "renewal_schedule", "store_repair"))
BELOW_SINGLE_FLIGHT = (*BELOW_EXCHANGES, f"{BROKER}.exchanges", f"{BROKER}.revocations", *SCHEDULING)
BELOW_LOGINS = (*BELOW_SINGLE_FLIGHT, f"{BROKER}.single_flight")
BESIDE_LOGINS = tuple(
    f"{BROKER}.{each}"
    for each in ("waiting", "grant_tokens", "logins", "grant_status", "locked_grants", "next_exchange", "why_no_token")
)
BELOW_BROKER = (*BELOW_LOGINS, *BESIDE_LOGINS)
BELOW_RELOAD = (*BELOW_BROKER, f"{BROKER}.broker")
ABOVE_SETUP = ("brokerd", "brokerd.doctor", "brokerd.files", "brokerd.ctl")
LOCAL_COMMANDS = ("add", "audit", "backup", "completion", "doctor", "files", "install", "local", "recipe")

# From the bottom up: a layer may import only what stands above it in this table (further down in the architecture).
LAYERS = (
    Layer(CLIENT, world=STDLIB | {"msgpack"}),
    Layer("brokerd_client.on_trio", (CLIENT,), world=STDLIB | {"msgpack", "trio"}),
    Layer("brokerd_client.auth", (CLIENT,), world=STDLIB | {"aiohttp", "grpc", "httpx", "requests", "sniffio"}),
    Layer("brokerd_client.keyring", (CLIENT,), world=STDLIB | {"keyring"}),
    Layer("brokerd"),
    Layer(CORE, world=PURE | SEALING | SIGNING | {"msgspec"}),
    Layer(DIALECTS, (CORE,), world=PURE | {"msgspec"}),
    Layer(EDGE, (CORE, "brokerd")),  # brokerd: its version, for the User-Agent
    Layer("brokerd.telemetry", (CORE,)),
    Layer(CONFIG, (CORE, DIALECTS)),
    Layer(BROKER),
    Layer(f"{BROKER}.provider", USE_CASES),
    Layer(f"{BROKER}.provider_status", (CORE, f"{BROKER}.provider")),
    Layer(f"{BROKER}.slow_providers", (*USE_CASES, f"{BROKER}.provider")),
    Layer(f"{BROKER}.downscoped", (CORE,)),
    Layer(f"{BROKER}.live_grant", (*USE_CASES, f"{BROKER}.provider", f"{BROKER}.downscoped")),
    Layer(f"{BROKER}.provider_memory", (CORE, f"{BROKER}.provider")),
    Layer(f"{BROKER}.send_guard", BELOW_EXCHANGES),
    Layer(f"{BROKER}.exchanges", (*BELOW_EXCHANGES, f"{BROKER}.send_guard", f"{BROKER}.provider_memory")),
    Layer(f"{BROKER}.revocations", (*BELOW_EXCHANGES, f"{BROKER}.exchanges")),
    Layer(f"{BROKER}.grant_registry", (f"{BROKER}.live_grant",)),
    Layer(f"{BROKER}.planner", (CORE, f"{BROKER}.live_grant")),
    Layer(f"{BROKER}.renewal_schedule", (CORE, f"{BROKER}.live_grant", *SCHEDULING[:2])),
    Layer(f"{BROKER}.store_repair", (*BELOW_EXCHANGES, *SCHEDULING[:3])),
    Layer(f"{BROKER}.single_flight", BELOW_SINGLE_FLIGHT),
    Layer(f"{BROKER}.waiting", BELOW_LOGINS),
    Layer(f"{BROKER}.grant_tokens", (*BELOW_LOGINS, f"{BROKER}.waiting")),
    Layer(f"{BROKER}.logins", BELOW_LOGINS),
    Layer(f"{BROKER}.grant_status", (CORE, f"{BROKER}.live_grant")),
    Layer(f"{BROKER}.locked_grants", (CORE, f"{BROKER}.live_grant", f"{BROKER}.grant_status")),
    Layer(f"{BROKER}.next_exchange", (CORE, f"{BROKER}.live_grant", f"{BROKER}.planner")),
    Layer(f"{BROKER}.why_no_token", (CORE, f"{BROKER}.live_grant")),
    Layer(
        f"{BROKER}.gauges",
        (CORE, "brokerd.telemetry", *(f"{BROKER}.{each}" for each in ("provider", "live_grant", "grant_status"))),
    ),
    Layer(f"{BROKER}.broker", BELOW_BROKER),
    Layer(f"{BROKER}.missing_secrets", BELOW_RELOAD),
    Layer(f"{BROKER}.changed_secrets", BELOW_RELOAD),
    # The start and a reload read the credentials that say who a grant is.
    Layer(f"{BROKER}.reload", (*BELOW_RELOAD, f"{EDGE}.files.secret_sources")),
    # What is derived of a passphrase is arithmetic, and stays in edge for its salt alone.
    Layer(f"{BROKER}.fleet_changes", BELOW_RELOAD),
    Layer(f"{BROKER}.key_management", (*BELOW_RELOAD, f"{EDGE}.store.passphrase")),
    Layer("brokerd.alerts", (*USE_CASES, BROKER, EDGE)),
    Layer(SERVER, (*USE_CASES, "brokerd", BROKER, f"{EDGE}.peer.peer", f"{EDGE}.http.requests", CLIENT)),
    Layer(SETUP),
    Layer(f"{SETUP}.new_grant", (CORE, DIALECTS, CONFIG)),
    Layer(f"{SETUP}.installation", (CORE, CONFIG, EDGE)),
    Layer(f"{SETUP}.layout", (CORE, CONFIG, f"{SETUP}.installation")),
    Layer(f"{SETUP}.install_files", (CONFIG, f"{SETUP}.layout")),
    Layer(f"{SETUP}.check", (CORE, CONFIG, f"{SETUP}.installation", f"{SETUP}.layout", EDGE)),
    # These build what they need, as the daemon does.
    Layer(f"{SETUP}.recipe_trial", (*USE_CASES, f"{BROKER}.provider", f"{SETUP}.installation", EDGE)),
    Layer("brokerd.doctor", (*USE_CASES, "brokerd", f"{SETUP}.check", f"{SETUP}.installation", EDGE, CLIENT)),
    Layer("brokerd.files", (CORE, CONFIG, EDGE, CLIENT, "brokerd_client.on_trio")),
    # It reads FILE.toml and says its mistakes as `brokerctl files` does, and takes its tokens from the same place.
    Layer(
        "brokerd.proxy",
        (
            *(CORE, CONFIG, EDGE, CLIENT, "brokerd_client.on_trio", "brokerd"),
            *("brokerd.files.sources", f"{SETUP}.check"),
        ),
    ),
    Layer("brokerd.ctl", (CLIENT,), world=STDLIB),  # at top level; see the tests
    # These use nearly all that they import: each is imported itself only when its command runs, so no other start pays.
    *(
        Layer(f"brokerd.ctl.{each}", (CORE, DIALECTS, CONFIG, SETUP, EDGE, CLIENT, *ABOVE_SETUP))
        for each in ("as_owner", "first_key", "questions", *(f"commands.{command}" for command in LOCAL_COMMANDS))
    ),
    # The whole of brokerctl status: imported when the command runs.
    Layer("brokerd.ctl.status", (CORE, EDGE, CLIENT, "brokerd.ctl")),
    Layer("brokerd.ctl.commands.status", (CORE, EDGE, CLIENT, "brokerd.ctl")),
    Layer("brokerd.ctl.commands.fleet", (CORE, EDGE, CLIENT, "brokerd.ctl")),
    Layer("brokerd.daemon", (*USE_CASES, "brokerd", "brokerd.alerts", BROKER, SERVER, SETUP, EDGE, CLIENT)),
    Layer("brokerd.daemon.check_command", (CORE, SETUP, "brokerd.ctl")),
    Layer("brokerd.daemon.readiness", (*USE_CASES, BROKER)),
    Layer("brokerd.daemon.main", ("brokerd",)),
)
# Libraries whose exceptions are translated in edge and seen nowhere above it.
EDGE_ALONE = frozenset({"ctypes", "fcntl", "grp", "h11", "pwd", "sqlite3", "ssl", "subprocess"})
EVERYTHING_OF_OURS = ("brokerd.daemon.main",)  # the only place where objects are built and joined


@dataclass(frozen=True)
class Import:
    """One import: what is imported, on which line, whether at the top level of its module, and whether for types
    alone."""

    target: str
    line: int
    top_level: bool
    for_types: bool


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import of a module that lies in `package`; `from a import b` is both a and, if there is one, a.b."""

    def walk(node: ast.AST, top_level: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inner = top_level and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typed = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, top_level, typed)
            elif isinstance(child, ast.ImportFrom):
                base = ".".join(package.split(".")[: 1 - child.level or None]) if child.level else ""
                module = ".".join(filter(None, (base, child.module)))
                for alias in child.names:
                    whole = f"{module}.{alias.name}"
                    yield Import(whole if whole in MODULES else module, child.lineno, top_level, typed)
            else:
                yield from walk(child, inner, typed)

    yield from walk(ast.parse(source), True, False)


def layer_of(module: str) -> Layer | None:
    """The most special layer that the module belongs to; the package brokerd itself is its __init__ alone."""
    found = [each for each in LAYERS if module == each.name or module.startswith(f"{each.name}.")]
    layer = max(found, key=lambda each: len(each.name), default=None)
    return None if layer is not None and layer.name == "brokerd" != module else layer


def within(target: str, names: tuple[str, ...] | frozenset[str]) -> bool:
    return any(target == name or (target.startswith(f"{name}.") and name != "brokerd") for name in names)


def faults_of(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module, one sentence each."""
    layer = layer_of(module)
    if layer is None:
        return [f"{module} is in no layer: say in the table of {Path(__file__).name} what it may import"]
    package = module if module in PACKAGE_NAMES else module.rpartition(".")[0]
    faults = []
    for each in imports_of(source, package):
        ours = each.target.partition(".")[0] in PACKAGES
        if layer.name == "brokerd.ctl" and (each.for_types or not each.top_level):
            continue  # anything else, only inside the command that needs it: its start costs nothing then
        if ours:
            allowed = layer.name in EVERYTHING_OF_OURS or within(each.target, (layer.name, *layer.ours))
        else:
            world = layer.world
            allowed = within(each.target, world) if world else not within(each.target, EDGE_ALONE) or layer.name == EDGE
        if not allowed:
            faults.append(f"{module}:{each.line} imports {each.target}")
    return faults


def impurities_of(module: str, source: str) -> list[str]:
    """Calls that reach for the world without an import of their own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in IMPURE_CALLS:
                found.append(f"{module}:{node.lineno} calls {name}")
            case ast.Attribute(value=ast.Name(id="datetime" | "date" | "time"), attr=name) if name in CLOCK_METHODS:
                found.append(f"{module}:{node.lineno} reads the clock: {name}")
            case ast.Attribute(value=ast.Name(id="AESGCM"), attr="generate_key"):
                found.append(f"{module}:{node.lineno} draws a key")
    return found


def _modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            parts = (package, *file.relative_to(folder).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = _modules()
PACKAGE_NAMES = {name for name, file in MODULES.items() if file.name == "__init__.py"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_downwards_only(module: str) -> None:
    assert faults_of(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith((CORE, DIALECTS))))
def test_pure_code_reads_no_file_and_no_clock(module: str) -> None:
    assert impurities_of(module, MODULES[module].read_text()) == []


def test_a_layer_names_only_layers_that_stand_before_it() -> None:
    for number, layer in enumerate(LAYERS):
        before = tuple(each.name for each in LAYERS[:number])
        assert [name for name in layer.ours if not within(name, before)] == [], layer.name


def test_every_layer_of_the_table_exists() -> None:
    assert [layer.name for layer in LAYERS if layer.name not in MODULES] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {}
    for module, file in MODULES.items():
        package = module if module in PACKAGE_NAMES else module.rpartition(".")[0]
        targets = {each.target for each in imports_of(file.read_text(), package) if not each.for_types}
        graph[module] = {target for target in targets if target in MODULES and target != module}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


# The checker itself: that it finds what it is there for.


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("brokerd.core.grant.state", "import trio"),
        ("brokerd.core.grant.state", "import os.path"),
        ("brokerd.core.grant.state", "from time import monotonic"),
        ("brokerd.core.grant.state", "def f():\n    import socket"),
        ("brokerd.core.grant.state", "from brokerd.edge import store"),
        ("brokerd.core.grant.state", "from brokerd import config"),
        ("brokerd.core.grant.state", "from ... import config"),
        ("brokerd.core.grant.state", "from ...edge.store.store import Store"),
        ("brokerd.core.grant.state", "if TYPE_CHECKING:\n    from brokerd.broker.broker import TokenBroker"),
        ("brokerd.dialects.recipe.dialect", "from brokerd.config import load"),
        ("brokerd.dialects.recipe.dialect", "import random"),
        ("brokerd.edge.http.client", "from brokerd.dialects import oauth2"),
        ("brokerd.broker.broker", "from brokerd.edge.store.store import Store"),
        ("brokerd.broker.broker", "from brokerd.server.server import Server"),
        ("brokerd.server.server", "import sqlite3"),
        ("brokerd_client.wire", "import trio"),
        ("brokerd.broker.exchanges", "from brokerd.broker.broker import TokenBroker"),
        ("brokerd.server.server", "from brokerd.edge.store.store import Store"),
        ("brokerd.ctl", "import rich"),
        ("brokerd.ctl", "from brokerd.config.load import load"),
        ("brokerd_client.wire", "import brokerd.core.errors"),
        ("brokerd.novelty", "import re"),
    ],
)
def test_an_import_that_breaks_a_layer_is_found(module: str, source: str) -> None:
    assert len(faults_of(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "brokerd.core.grant.state",
            "from ..timing.moment import Moment\nimport msgspec\nfrom collections.abc import Mapping",
        ),
        ("brokerd.daemon.main", "from brokerd.edge.store.store import Store\nimport trio"),
        ("brokerd.ctl", "import argparse\nfrom brokerd_client import Broker\ndef get():\n    import rich"),
        ("brokerd.broker.reload", "from brokerd.edge.files.secret_sources import read_secret"),
    ],
)
def test_an_import_that_keeps_to_its_layer_is_not_found(module: str, source: str) -> None:
    assert faults_of(module, source) == []


@pytest.mark.parametrize("source", ["open('x')", "datetime.now()", "AESGCM.generate_key(256)"])
def test_a_call_that_is_not_pure_is_found(source: str) -> None:
    assert len(impurities_of("brokerd.core.grant.state", source)) == 1
