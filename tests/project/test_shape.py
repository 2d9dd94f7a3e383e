# The shape of the code: no class name stands for two things, no file, function or class of brokerd/ is too large to
# read at once, and objects are built in daemon/main.
from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROKERD = sorted((ROOT / "brokerd").rglob("*.py"))
CLIENT = sorted((ROOT / "client").rglob("*.py"))
FILE_LINES, FUNCTION_LINES, CLASS_ATTRIBUTES = 400, 60, 12
REASON = re.compile(r"Many attributes:|more than 12 attributes because")  # in the docstring of a class that has more

# Names that stand twice on purpose, with the modules that define them.
TWICE = {
    # The client library has each of these for blocking code, trio and asyncio: one name, so that programs look alike.
    "Broker": {"blocking", "on_trio", "on_asyncio"},
    "Watch": {"blocking", "asynchronous"},
    # One class for each library, under one name.
    "BrokerAuth": {"requests", "httpx", "aiohttp"},
    "_Connection": {"blocking", "on_trio", "on_asyncio"},
    # The term of both protocols: the answer of HTTP, and that of MessagePack-RPC.
    "Response": {"steps", "wire"},
    # What a reload changed, and what one revision of etcd changed.
    "Changes": {"reload", "etcd"},
    # The error code `misconfigured` of the protocol: the outcome of an exchange, and what the client library raises.
    "Misconfigured": {"outcomes", "errors"},
}
# Who besides daemon/main builds objects that reach the outside world or that the daemon has one of: other programs.
BUILDERS = {
    "doctor/__init__.py": {"SystemClock"},  # brokerctl doctor
    "doctor/etcd.py": {"EtcdClient", "HttpClient", "Opener"},
    "doctor/network.py": {"HttpClient", "Opener"},
    "daemon/auditing.py": {"AuditWriter"},  # one for the daemon
    "daemon/sharing.py": {"EtcdClient", "FleetStore", "Mirror"},  # likewise, if it is in a fleet
    "daemon/certificates.py": {"ThreadLimit"},  # one for the files of certificates
    "daemon/file_reading.py": {"ThreadLimit"},  # one for those of secrets
    "setup/installation.py": {
        "SqliteStore",
        "SystemEntropy",
        "ThreadLimit",
    },  # opens the store for the daemon and for brokerctl
    "setup/recipe_trial.py": {"HttpClient", "SystemClock", "SystemEntropy"},  # brokerctl recipe try
    "ctl/commands/add.py": {"CreatedFiles", "HttpClient", "SystemClock"},  # brokerctl add
    "ctl/commands/files.py": {"KeptFiles", "Log"},  # brokerctl files
    "ctl/commands/install.py": {"CreatedFiles", "Installed"},  # brokerctl install
    "proxy/clients.py": {"Peer", "Wire"},  # one for each connection
    "proxy/short_way.py": {"Arrivals"},  # one for the process
    "proxy/main.py": {"Log"},  # brokerd-proxy
    "proxy/upstreams.py": {"WireOpener"},  # one for each proxy
    "server/http/connection.py": {"HttpReader"},  # one for each connection
    "server/http/metrics_port.py": {"HttpReader"},  # likewise
    "server/server.py": {"Peer"},  # likewise
}
VALUES = ("Error", "Exception", "NamedTuple", "Enum")  # base classes of what anybody may make


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def attributes(node: ast.ClassDef) -> set[str]:
    """The instance attributes: those that __init__ assigns, and the fields of a dataclass."""
    found = set()
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__post_init__"):
            stored = (inner for inner in ast.walk(each) if isinstance(inner, ast.Attribute))
            found |= {
                inner.attr
                for inner in stored
                if isinstance(inner.ctx, ast.Store) and isinstance(inner.value, ast.Name) and inner.value.id == "self"
            }
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and _is_dataclass(node):
            found.add(each.target.id)
    return found


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(each) for each in node.decorator_list)


def too_large(path: Path) -> list[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    found = [f"{lines} lines"] if lines > FILE_LINES else []
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{node.name} has {length} lines")
        elif isinstance(node, ast.ClassDef) and (number := len(attributes(node))) > CLASS_ATTRIBUTES:
            if REASON.search(ast.get_docstring(node) or "") is not None:
                continue
            found.append(f"{node.name} has {number} attributes, and no sentence that says why (Many attributes: …)")
    return found


def test_no_class_name_stands_twice() -> None:
    places = defaultdict(list)
    for path in (*BROKERD, *CLIENT):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    twice = {
        name: [str(path.relative_to(ROOT)) for path in paths]
        for name, paths in places.items()
        if len(paths) > 1 and TWICE.get(name) != {path.stem for path in paths}
    }
    assert twice == {}


@pytest.mark.parametrize("path", BROKERD, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_function_or_class_is_too_large(path: Path) -> None:
    assert too_large(path) == []


def objects_of(path: Path) -> set[str]:
    """The classes of a file that are neither values nor exceptions."""
    classes = [each for each in nodes(path) if isinstance(each, ast.ClassDef)]
    return {
        each.name
        for each in classes
        if not any("dataclass" in ast.unparse(decorator) for decorator in each.decorator_list)
        and not any(ast.unparse(base).endswith(VALUES) for base in each.bases)
    }


def built_in(path: Path) -> set[str]:
    """The names that a file calls, `module.Name(...)` of our modules too."""
    called = [each.func for each in nodes(path) if isinstance(each, ast.Call)]
    ours = [each for each in called if ast.unparse(each).partition(".")[0] not in ("trio", "threading")]
    return {ast.unparse(each).rpartition(".")[2] for each in ours}


def test_objects_are_built_in_main_alone() -> None:
    """What reaches the outside world (the classes of edge/), and what daemon/main builds."""
    main, edge = ROOT / "brokerd" / "daemon" / "main.py", ROOT / "brokerd" / "edge"
    every = set().union(*map(objects_of, BROKERD))
    guarded = (built_in(main) & every).union(*(objects_of(path) for path in BROKERD if edge in path.parents))
    builders = {
        str(path.relative_to(ROOT / "brokerd")): built_in(path) & guarded
        for path in BROKERD
        if path != main and edge not in path.parents
    }
    assert {name: built for name, built in builders.items() if built} == BUILDERS
