from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from brokerd_client import (
    BadRequest,
    Broker,
    Denied,
    Gone,
    Limit,
    NoDaemon,
    ProtocolError,
    Token,
    Unavailable,
    UnknownGrant,
    errors,
)
from brokerd_client.request import REPEATABLE

from tests.unit.client.daemon import Daemon, Hangup


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def test_a_get_brings_a_token(daemon: Daemon) -> None:
    with Broker() as broker:
        token = broker.get("ix")
    assert (token.value, token.grant, token.expires_at) == ("token-of-ix", "ix", 2e9)
    assert daemon.calls == [("get", {"grant": "ix"})]


def test_a_get_says_what_it_was_told_to(daemon: Daemon) -> None:
    with Broker(daemon.path) as broker:
        broker.get("ix", min_ttl=60, wait=3, refused="old")
    assert daemon.calls == [("get", {"grant": "ix", "min_ttl": 60, "wait": 3, "refused": "old"})]


def test_a_get_names_the_downscoped_token_that_is_wanted(daemon: Daemon) -> None:
    daemon.answers["get"] = lambda params: {**daemon.token(params), "scope": ["a"]}
    with Broker(daemon.path) as broker:
        assert broker.get("ix", scope={"a": 1}, audience="x", resource="urn:r").scope == ("a",)
        broker.get("ix", scope="a b")
    variant = {"grant": "ix", "scope": ["a"], "audience": "x", "resource": "urn:r"}
    assert daemon.calls == [("get", variant), ("get", {"grant": "ix", "scope": ["a", "b"]})]


def test_a_token_of_another_grant_than_the_one_that_was_asked_for_is_not_taken(daemon: Daemon) -> None:
    daemon.answers["get"] = lambda params: daemon.token({"grant": "other"})
    daemon.answers["get_many"] = lambda params: [{"token": daemon.token({"grant": "other"})}]
    daemon.answers["proof"] = lambda params: {**daemon.token({"grant": "other"}), "proof": "p"}
    with Broker(daemon.path) as broker:
        for ask in (
            lambda: broker.get("ix"),
            lambda: broker.get_many(["ix"]),
            lambda: broker.proof("ix", "GET", "https://api.example/"),
        ):
            with pytest.raises(ProtocolError, match="grant 'ix', found one of 'other'"):
                ask()
        with broker.watch("ix") as watch:
            in_thread(lambda: (daemon.wait_for_calls(4), daemon.notify("token", daemon.token({"grant": "other"}))))
            with pytest.raises(ProtocolError, match="watched grant, found one of 'other'"):
                next(watch)


def test_an_interrupt_at_any_line_leaves_no_socket_and_no_ignored_error(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, at each line of the client's code in turn, until a get comes to its end."""
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: ignored.append((found.exc_value, found.object)))
    package = str(Path(errors.__file__).parent)
    at = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal at
        if not frame.f_code.co_filename.startswith(package) or frame.f_code.co_name == "__del__":
            return None
        if event == "line":
            at -= 1
            if at == 0:
                raise KeyboardInterrupt
        return trace

    def interrupted(line: int) -> bool:
        nonlocal at
        broker, at = Broker(daemon.path), line
        sys.settrace(trace)
        try:
            broker.get("ix")
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
            broker.close()
        return False

    lines = next(line for line in range(1, 1_000) if not interrupted(line))
    gc.collect()
    assert lines > 50
    assert ignored == []


def test_an_answer_of_an_error_is_raised_as_its_class(daemon: Daemon) -> None:
    with Broker() as broker:
        with pytest.raises(UnknownGrant, match="no grant nope") as caught:
            broker.get("nope")
        assert caught.value.grant == "nope"
        assert broker.get("ix").value == "token-of-ix"
    assert daemon.connections == 1


def test_many_tokens_come_at_once(daemon: Daemon) -> None:
    daemon.answers["get_many"] = lambda params: [
        {"error": {"code": "denied", "message": "no"}} if grant == "no" else {"token": daemon.token({"grant": grant})}
        for grant in params["grants"]
    ]
    with Broker() as broker:
        tokens = broker.get_many(name for name in ("ix", "no"))
    assert isinstance(tokens["ix"], Token)
    assert isinstance(tokens["no"], Denied)


def test_other_methods_are_called_by_name(daemon: Daemon) -> None:
    daemon.answers["import"] = lambda params: {"grant": params["grant"], "generation": 4}
    with Broker() as broker:
        assert broker.call("import", grant="ix", refresh_token="r")["generation"] == 4


def test_requests_one_after_another_share_a_connection(daemon: Daemon) -> None:
    with Broker(share=False) as broker:
        for _ in range(5):
            broker.get("ix")
    assert daemon.connections == 1


def test_a_restarted_daemon_is_not_noticed(daemon: Daemon) -> None:
    with Broker() as broker:
        broker.get("ix")
        daemon.restart()
        assert broker.get("ix").value == "token-of-ix"


def test_a_connection_that_ends_before_the_answer_is_tried_once_more(daemon: Daemon) -> None:
    def once(params: dict[str, Any]) -> Any:
        daemon.answers["get"] = daemon.token
        raise Hangup

    daemon.answers["get"] = once
    with Broker() as broker:
        assert broker.get("ix").value == "token-of-ix"
    assert len(daemon.calls) == 2


def test_a_connection_that_ends_again_is_given_up(daemon: Daemon) -> None:
    def never(params: dict[str, Any]) -> Any:
        raise Hangup

    daemon.answers["get"] = never
    with Broker() as broker, pytest.raises(NoDaemon, match="try again"):
        broker.get("ix")
    assert len(daemon.calls) == 2


def test_an_import_is_never_sent_twice(daemon: Daemon) -> None:
    def never(params: dict[str, Any]) -> Any:
        raise Hangup

    daemon.answers["import"] = never
    with Broker() as broker, pytest.raises(NoDaemon, match="whether import was done is unknown"):
        broker.call("import", grant="ix", refresh_token="r")
    assert len(daemon.calls) == 1
    assert not REPEATABLE & {"import", "revoke", "forget", "adopt", "reload"}


def test_an_import_does_not_fail_for_a_connection_that_died_before(daemon: Daemon) -> None:
    daemon.answers["import"] = lambda params: {}
    with Broker() as broker:
        broker.get("ix")
        daemon.restart()
        broker.call("import", grant="ix", refresh_token="r")


def test_requests_that_continue_each_other_share_a_connection_of_their_own(daemon: Daemon) -> None:
    parts: list[str] = []
    daemon.answers["import_part"] = lambda params: parts.append(params["part"])
    daemon.answers["import"] = lambda params: {"generation": 4}
    requests = [*(("import_part", {"grant": "ix", "part": each}) for each in "ab"), ("import", {"grant": "ix"})]
    with Broker() as broker:
        broker.get("ix")
        before = daemon.connections
        assert list(broker.call_on_one(requests)) == [None, None, {"generation": 4}]
        assert (parts, daemon.connections) == (["a", "b"], before + 1)

        def never(params: dict[str, Any]) -> Any:
            raise Hangup

        daemon.answers["import_part"] = never
        with pytest.raises(NoDaemon, match="whether import_part was done is unknown"):
            list(broker.call_on_one(requests))
    assert [method for method, _ in daemon.calls] == ["get", "import_part", "import_part", "import", "import_part"]


def test_without_a_daemon_the_path_and_a_remedy_are_told(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    with Broker(path) as broker, pytest.raises(NoDaemon, match=r"no socket at .*none\.sock: is brokerd running"):
        broker.get("ix")


def test_a_socket_that_nobody_serves_any_more_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Broker(path) as broker, pytest.raises(NoDaemon, match="nobody listens at"):
        broker.get("ix")


def test_a_path_too_long_for_a_socket_is_no_daemon() -> None:
    with Broker("/" + "x" * 200) as broker, pytest.raises(NoDaemon, match="too long"):
        broker.get("ix")


def test_a_daemon_that_never_answers_hangs_nobody(daemon: Daemon) -> None:
    over = threading.Event()
    daemon.answers["get"] = lambda params: over.wait(10)
    with Broker(timeout=0.05) as broker, pytest.raises(Unavailable, match=r"within 0\.05 s"):
        broker.get("ix", wait=0)
    over.set()


def test_a_daemon_that_never_accepts_hangs_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with Broker(path, timeout=0.05) as broker, pytest.raises(Unavailable):
            broker.get("ix", wait=0)


def test_a_late_answer_never_meets_the_next_request(daemon: Daemon) -> None:
    over = threading.Event()
    daemon.answers["get"] = lambda params: over.wait(10) and daemon.token(params)
    with Broker(timeout=0.05) as broker:
        with pytest.raises(Unavailable):
            broker.get("slow", wait=0)
        over.set()
        assert broker.get("ix").grant == "ix"


def test_a_slow_get_in_one_thread_holds_up_no_other(daemon: Daemon) -> None:
    over = threading.Event()
    daemon.answers["get"] = lambda params: (params["grant"] == "ix" or over.wait(10)) and daemon.token(params)
    with Broker() as broker:
        thread, slow = in_thread(lambda: broker.get("slow").value)
        daemon.wait_for_calls(1)
        assert broker.get("ix").value == "token-of-ix"
        assert slow == []
        over.set()
        thread.join()
    assert slow == ["token-of-slow"]


def test_many_threads_each_get_their_own_answer(daemon: Daemon) -> None:
    with Broker() as broker:
        work = [in_thread(lambda name=f"g{n}": [broker.get(name).grant for _ in range(20)]) for n in range(20)]
        for thread, _ in work:
            thread.join()
        assert len(broker._idle) <= 8
    assert [found for _, [found] in work] == [[f"g{n}"] * 20 for n in range(20)]


def test_a_forked_child_makes_a_connection_of_its_own(daemon: Daemon) -> None:
    program = """if True:
        import os, sys
        from brokerd_client import Broker
        broker = Broker()
        broker.get("before")
        child = os.fork()
        value = broker.get("child" if child == 0 else "parent").value
        if child == 0:
            os._exit(0 if value == "token-of-child" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert value == "token-of-parent"
    """
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)
    assert daemon.connections == 2
    assert sorted(params["grant"] for _, params in daemon.calls) == ["before", "child", "parent"]


def test_a_child_program_does_not_inherit_the_socket(daemon: Daemon) -> None:
    with Broker() as broker:
        broker.get("ix")
        kept = broker._idle[0]._sock.fileno()
        program = f"import os, sys; sys.exit(os.path.exists('/proc/self/fd/{kept}'))"
        subprocess.run([sys.executable, "-c", program], check=True, close_fds=False)


def test_a_watch_brings_each_token_as_it_comes(daemon: Daemon) -> None:
    with Broker() as broker, broker.watch("ix") as events:
        thread, first = in_thread(lambda: next(events))
        daemon.wait_for_calls(1)
        daemon.notify("token", daemon.token({"grant": "ix"}))
        thread.join()
        daemon.notify("gone", {"grant": "ix", "code": "revoked", "message": "over"})
        second = next(events)
    assert isinstance(first[0], Token)
    assert isinstance(second, Gone)
    assert isinstance(second.error, errors.Revoked)


def test_events_that_come_together_with_the_answer_are_not_left_lying(daemon: Daemon) -> None:
    def watching(params: dict[str, Any]) -> Any:
        daemon.notify("token", daemon.token({"grant": "a"}))
        daemon.notify("token", daemon.token({"grant": "b"}))
        return {"watching": params["grants"]}

    daemon.answers["watch"] = watching
    with Broker() as broker, broker.watch("a", "b") as events:
        assert [next(events).grant, next(events).grant] == ["a", "b"]


def test_a_watch_goes_on_after_a_restart(daemon: Daemon) -> None:
    def watching(params: dict[str, Any]) -> Any:
        daemon.notify("token", daemon.token({"grant": "ix"}))
        return {"watching": params["grants"]}

    daemon.answers["watch"] = watching
    with Broker() as broker, broker.watch("ix") as events:
        next(events)
        daemon.restart()
        assert isinstance(next(events), Token)


def test_a_watch_of_an_unknown_grant_is_refused(daemon: Daemon) -> None:
    def watching(params: dict[str, Any]) -> Any:
        raise UnknownGrant("no grant nope", grant="nope")

    daemon.answers["watch"] = watching
    with Broker() as broker, pytest.raises(UnknownGrant):
        next(broker.watch("nope"))


def test_the_last_words_of_a_daemon_that_hangs_up_are_heard(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def refuse() -> None:
            connection, _ = listener.accept()
            connection.sendall(bytes.fromhex("9401c082a4636f6465a56c696d6974a76d657373616765a46e6f7421c0"))
            connection.close()

        thread, _ = in_thread(refuse)
        with Broker(path) as broker, pytest.raises(Limit, match="not!"):
            broker.get("ix")
        thread.join()


def test_what_is_not_brokerd_at_the_socket_is_a_protocol_error(tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def talk() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread, _ = in_thread(talk)
        with Broker(path) as broker, pytest.raises(ProtocolError):
            broker.get("ix")
        thread.join()


@pytest.mark.parametrize("grant", ["x" * 70_000, "\udcff"])
def test_a_request_that_would_end_the_connection_is_not_sent(daemon: Daemon, grant: str) -> None:
    with Broker() as broker:
        with pytest.raises(BadRequest):
            broker.get(grant)
        assert broker.get("ix").grant == "ix"
    assert len(daemon.calls) == 1


def test_a_closed_broker_says_so(daemon: Daemon) -> None:
    broker = Broker()
    broker.get("ix")
    broker.close()
    with pytest.raises(RuntimeError, match="closed"):
        broker.get("ix")


def test_the_users_own_daemon_comes_before_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brokerd_client.address import find_socket

    monkeypatch.delenv("BROKERD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert find_socket() == "/run/brokerd/brokerd.sock"
    (tmp_path / "brokerd").mkdir()
    (tmp_path / "brokerd" / "brokerd.sock").touch()
    assert find_socket() == str(tmp_path / "brokerd" / "brokerd.sock")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # after su: the folder is somebody else's
        assert find_socket() == "/run/brokerd/brokerd.sock"
    monkeypatch.setenv("BROKERD_SOCKET", "/elsewhere")
    assert find_socket() == "/elsewhere"


def test_importing_the_client_is_cheap() -> None:
    def loaded(program: str) -> set[str]:
        command = [sys.executable, "-I", "-c", f"import sys; {program}; print(*sys.modules)"]
        return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())

    heavy = {"typing", "dataclasses", "json", "logging", "threading", "asyncio", "trio", "importlib.metadata", "re"}
    assert not heavy & (loaded("import brokerd_client") - loaded("pass"))


def test_a_broker_that_nobody_closed_leaves_no_warning(daemon: Daemon) -> None:
    program = "from brokerd_client import Broker; b = Broker(); b.get('ix'); del b"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, b"")
