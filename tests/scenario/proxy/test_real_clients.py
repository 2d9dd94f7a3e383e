# Clients that nobody here wrote, each as its users run it, at the proxy's port or socket.
from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest
import trio

from tests.did_not_run import did_not_run
from tests.scenario.logins.chromium import PROGRAM, Chromium
from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.upstream import End, Seen
from tests.scenario.proxy.upstream import Link as Upstreams

BODY = "x" * 300_000
PYTHON = """\
import sys, {library} as library
session = library.{session}()
for method, data in (("GET", None), ("POST", "x" * 300_000), ("PUT", (b"x" for _ in range(1000)))):
    answer = session.request(method, sys.argv[1], {data}=data)
    assert answer.status_code == 200, answer.text
    print(answer.json()["size"])
"""
NODE = """\
const agent = new (require("http").Agent)({keepAlive: true});
async function ask(method, size) {
  const {status, text} = await new Promise((done, lost) => {
    const it = require("http").request(process.argv[1], {method, agent}, (answer) => {
      let text = ""; answer.on("data", (piece) => text += piece);
      answer.on("end", () => done({status: answer.statusCode, text}));
    });
    it.on("error", lost); it.end("x".repeat(size));
  });
  if (status !== 200) throw new Error(text);
  console.log(JSON.parse(text).size);
}
(async () => { await ask("GET", 0); await ask("POST", 300000); await ask("PUT", 1000); agent.destroy(); })();
"""
GO = """\
package main

import ("encoding/json"; "fmt"; "io"; "net/http"; "os"; "strings")

func main() {
	for _, each := range []struct{ method string; body io.Reader }{
		{"GET", nil}, {"POST", strings.NewReader(strings.Repeat("x", 300000))},
		{"PUT", io.MultiReader(strings.NewReader(strings.Repeat("x", 1000)))}} {
		request, _ := http.NewRequest(each.method, os.Args[1], each.body)
		answer, err := http.DefaultClient.Do(request)
		if err != nil { panic(err) }
		var found struct{ Size int }
		if json.NewDecoder(answer.Body).Decode(&found) != nil || answer.StatusCode != 200 { panic(answer.Status) }
		fmt.Println(found.Size)
	}
}
"""
PAGE = b"""<!doctype html><title>waiting</title><script>
const events = new EventSource("/events");
events.onmessage = (event) => { document.title = event.data; if (event.data === "2") events.close(); };
</script>"""


SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
CLOSE = 8  # a frame
CHAT = """\
const socket = new WebSocket(process.argv[1]);
socket.onopen = () => socket.send("abc");
socket.onerror = () => process.exit(1);
socket.onmessage = ({data}) => { console.log(data); socket.close(); };
socket.onclose = ({code}) => { console.log(code); process.exit(0); };
"""
CHAT_PAGE = b"""<!doctype html><title>waiting</title><script>
const socket = new WebSocket("ws://" + location.host + "/chat");
socket.onopen = () => socket.send("abc");
socket.onmessage = ({data}) => { document.title = data; };
</script>"""


async def ran(*command: str, **environ: str) -> str:
    whole = {**os.environ, **environ}
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, env=whole)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def chat(link: Upstreams, seen: Seen) -> None:
    """The other end of a WebSocket (RFC 6455): answers short texts in capitals, and a close with the same."""
    (key,) = seen.all("sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
    await link.send(f"{SWITCHING}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    data = b""
    while more := await link.stream.receive_some(1024):
        data += more
        while len(data) >= 6 and len(data) >= (end := 6 + (data[1] & 0x7F)):
            text = bytes(each ^ data[2 + number % 4] for number, each in enumerate(data[6:end]))
            is_close = data[0] & 0xF == CLOSE
            await link.send(bytes((data[0], len(text))) + (text if is_close else text.upper()))
            data = data[end:]
            if is_close:
                raise End


def needs(program: str) -> None:
    if shutil.which(program) is None:
        did_not_run(f"BROKERD-PROXY WITH {program.upper()}", f"{program} is not installed")


async def test_curl_at_socket_and_port(world: World, folder: Path) -> None:
    needs("curl")
    url = f"http://127.0.0.1:{world.proxy.port}"
    (folder / "body").write_text(BODY)
    unix = ("--unix-socket", str(world.proxy.path), "http://proxy/x")
    for where in ((f"{url}/x",), (f"http://localhost:{world.proxy.port}/x",), unix):
        assert '"size": 0' in await ran("curl", "-sSf", *where)
        assert '"size": 300000' in await ran("curl", "-sSf", "-T", str(folder / "body"), *where)
        chunked = ("-H", "Transfer-Encoding: chunked", "-d", f"@{folder / 'body'}")
        assert '"size": 300000' in await ran("curl", "-sSf", *chunked, *where)
        assert '"size": 0' in await ran("curl", "-sSf", "--http1.0", *where)
    by_proxy = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_connect}", "--proxy", url, "https://api.example/")
    done = await trio.run_process(by_proxy, capture_stdout=True, check=False)
    assert done.stdout == b"405"


@pytest.mark.parametrize("words", [("requests", "Session", "data"), ("httpx", "Client", "content")])
async def test_python(world: World, words: tuple[str, str, str]) -> None:
    code = PYTHON.format(**dict(zip(("library", "session", "data"), words, strict=True)))
    url = f"http://127.0.0.1:{world.proxy.port}/x"
    assert await ran(sys.executable, "-c", code, url) == "0\n300000\n1000\n"
    assert len({seen.token for seen in world.upstream.seen}) == 1


async def test_node(world: World) -> None:
    needs("node")
    assert await ran("node", "-e", NODE, f"http://127.0.0.1:{world.proxy.port}/x") == "0\n300000\n1000\n"


async def test_the_websocket_of_node(world: World) -> None:
    needs("node")
    flag = "--experimental-websocket"
    if (await trio.run_process(["node", flag, "-e", ""], check=False, capture_stderr=True)).returncode:
        did_not_run("BROKERD-PROXY WITH NODE'S WEBSOCKET", "node is older than 20.10")
    world.upstream.on("/chat", chat)
    url = f"ws://127.0.0.1:{world.proxy.port}/chat"
    assert await ran("node", flag, "-e", CHAT, url) == "ABC\n1005\n", "its close frame is empty, and so is the answer"


async def test_go(world: World, folder: Path) -> None:
    needs("go")
    (folder / "app.go").write_text(GO)
    url = f"http://127.0.0.1:{world.proxy.port}/x"
    environ = {"GOCACHE": str(folder / "cache"), "GO111MODULE": "off"}
    assert await ran("go", "run", str(folder / "app.go"), url, **environ) == "0\n300000\n1000\n"


@pytest.mark.parametrize(("name", "html", "title"), [("events", PAGE, "2"), ("chat", CHAT_PAGE, "ABC")])
async def test_a_browser_by_a_page_that_the_proxy_serves(
    world: World, tmp_path: Path, name: str, html: bytes, title: str
) -> None:
    if PROGRAM is None:
        did_not_run("BROKERD-PROXY WITH CHROMIUM", "chromium is not installed")

    async def page(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.answer(200, html, "Content-Type: text/html")

    async def events(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await link.send(b"data: 2\n\n")
        await link.stream.receive_some(1)
        raise End

    world.upstream.handlers |= {"/page": page, "/events": events, "/chat": chat}
    chromium = Chromium(tmp_path)
    try:
        await chromium.attach()
        await chromium.open(f"http://localhost:{world.proxy.port}/page")
        await chromium.until(f"document.title === '{title}'")
    finally:
        chromium.close()
    assert {seen.target for seen in world.upstream.seen} >= {"/page", f"/{name}"}
