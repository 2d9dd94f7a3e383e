# Which requests a proxy refuses, and what it makes of the headers of the others.
import pytest

from brokerd.core.http.forwarding import (
    Allowed,
    NotForwarded,
    Upstream,
    check_browser,
    hosts_of,
    request_lines,
    response_lines,
    upgrades,
)
from brokerd.core.http.heads import RequestHead, read_request, read_response

UPSTREAM = Upstream("https://api.example", "api.example", "/api/v2")
TOKEN = ("Authorization", "Bearer token")


def request(target: str = "/", *lines: str, method: str = "GET", host: str = "localhost:8081") -> RequestHead:
    more = "".join(f"{line}\r\n" for line in lines)
    return read_request(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())


def sent(head: RequestHead, token: tuple[str, str] = TOKEN) -> list[str]:
    return request_lines(head, UPSTREAM, token).decode("latin-1").split("\r\n")[:-1]


def answered(*lines: str, status: int = 200) -> list[str]:
    more = "".join(f"{line}\r\n" for line in lines)
    head = read_response(f"HTTP/1.1 {status} X\r\n{more}\r\n".encode())
    return response_lines(head, UPSTREAM).decode("latin-1").split("\r\n")[:-1]


EVERYWHERE = (  # refused whatever is allowed
    "/v2/%EF%BC%852e%EF%BC%852e/admin",  # a full-width percent sign
    "/v2/%25EF%25BC%25852e%25EF%25BC%25852e/admin",
    "/v2/../admin",
    "/v2/..",
    "/..",
    "/v2/./x",
    "/v2/.",
    "/v2/%2e%2e/admin",
    "/v2/%2E%2e/admin",
    "/v2/.%2e/admin",
    "/v2/%252e%252e/admin",
    "/v2/..;/admin",
    "/v2/..;x=y/admin",
    "/v2/..%2fadmin",
    "/v2%2f..%2fadmin",
    "/v2/..%252fadmin",
    "/v2/%25252e%25252e/admin",  # encoded three times,
    "/v2/%252525252525252e/x",  # and more often than anybody decodes
    "/v2/%c0%ae%c0%ae/admin",  # a dot in two, three, four and five bytes
    "/v2/%e0%80%ae%e0%80%ae/admin",
    "/v2/%f0%80%80%ae%f0%80%80%ae/admin",
    "/v2/%f8%80%80%80%ae/admin",
    "/v2/%c0%2e%c0%2e/admin",
    "/v2/%c0ae%c0ae/admin",
    "/v2/%25c0%25ae/admin",
    "/v2/%c0%afadmin",  # a slash in two bytes
    "/v2/%e0%80%af..%e0%80%afadmin",
    "/v2/%u002e%u002e/admin",
    "/v2/%u002e./admin",
    "/v2/%25u002e%25u002e/admin",
    "/v2/%uff0e%uff0e/admin",
    "/v2/%ef%bc%8e%ef%bc%8e/admin",  # full-width dots
    "/v2/%e2%80%a5/admin",  # a two dot leader
    "/v2/..%ef%bc%8fadmin",  # a full-width slash
    "/v2/x%ff",
    "/v2/%ed%a0%80",
    "/v2/%",
    "/v2/%2",
    "/v2/%zz",
    "/v2/.%00./admin",
    "/v2/..%00/admin",
    "/v2/%2500",
    "/v2/..%20/admin",
    "/v2/%20../admin",
    "/v2/..%3b/admin",
    "/v2/%2e%2e%3bx=y/admin",
    "/v2/..;x/..;y/admin",
    "/v2/.;/admin",
    "/v2/;/admin",
    "/v2/%255c..%255cadmin",
    "/v2/..%5cadmin",
    "/v2/..\\admin",
    "/v2\\..\\admin",
    "/v2//admin",
    "//api.example/v2",
    "/;x/admin",
    "/v2/x%00",
    "/v2/x%0d%0aX:y",
    "/v2/x#y",
    "http://other.example/v2/x",
    "https://api.example/v2/x",
    "api.example:443",
    "*",
    "?x",
)
ONLY_V2 = (
    "/%ef%bd%962/x",
    "/%252576%252532/x",
    "/admin",
    "/v2",
    "/V2/x",
    "/v2%2fadmin",
    "/%76%32/x",
    "/v3/v2/x",
    "/?/v2/x",
    "/%2576%2532/x",
)
GOOD = (
    "/v2/",
    "/v2/x",
    "/v2/x/y",
    "/v2/group%2Fproject",
    "/v2/x?y=../..//",
    "/v2/a..b",
    "/v2/...",
    "/v2/x%20y",
    "/v2/;a",
    "/v2/a;b=c/d",
    "/v2/100%25",
    "/v2/50%25used",
    "/v2/x%2520y",
    "/v2/Stra%C3%9Fe",
    "/v2/%E2%80%A6",  # three dots in one character
    "/v2/%F0%9F%98%80",
    "/v2/100%EF%BC%85",
)


@pytest.mark.parametrize("target", EVERYWHERE)
def test_no_target_leads_anywhere_but_where_it_seems_to(target: str) -> None:
    for allowed in (Allowed(), Allowed(None, ("/v2/*",))):
        with pytest.raises(NotForwarded) as caught:
            allowed.check(request(target))
        assert caught.value.status == 400


@pytest.mark.parametrize("target", ONLY_V2)
def test_a_path_must_be_allowed_in_each_of_its_readings(target: str) -> None:
    with pytest.raises(NotForwarded) as caught:
        Allowed(None, ("/v2/*",)).check(request(target))
    assert caught.value.status == 403
    assert "/v2/*" in str(caught.value)


@pytest.mark.parametrize("target", GOOD)
def test_a_path_that_is_allowed_is_passed_on_as_it_stands(target: str) -> None:
    assert Allowed(None, ("/v2/*", "/v3")).check(request(target)) == target.partition("?")[0].encode()
    assert sent(request(target))[0] == f"GET /api/v2{target} HTTP/1.1"


@pytest.mark.parametrize(("method", "status"), [("CONNECT", 405), ("TRACE", 405), ("DELETE", 403), ("get", 403)])
def test_only_methods_that_are_allowed_are_passed_on(method: str, status: int) -> None:
    allowed = Allowed(frozenset({b"GET", b"POST"}))
    allowed.check(request(method="POST"))
    with pytest.raises(NotForwarded) as caught:
        allowed.check(request(method=method))
    assert caught.value.status == status


def test_the_token_replaces_what_the_client_brought_and_nothing_removes_it() -> None:
    brought = (
        "authorization: Bearer mine",
        "AUTHORIZATION: Basic mine",
        "Connection: close, Authorization, X-Mine, Host",
    )
    lines = sent(request("/x", *brought, "X-Mine: 1", "X-Other: 1"))
    assert lines == ["GET /api/v2/x HTTP/1.1", "Host: api.example", "X-Other: 1", "Authorization: Bearer token"]


def test_a_token_in_another_header_replaces_that_one_and_authorization_is_not_passed_on() -> None:
    lines = sent(request("/x", "x-api-key: mine", "Authorization: mine"), ("X-Api-Key", "key"))
    assert lines == ["GET /api/v2/x HTTP/1.1", "Host: api.example", "X-Api-Key: key"]


def test_headers_that_name_another_method_or_path_are_not_passed_on() -> None:
    others = ("X-HTTP-Method-Override: DELETE", "X-Original-URL: /admin", "X-Rewrite-URL: /admin")
    assert sent(request("/x", *others))[2:] == ["Authorization: Bearer token"]


def test_a_header_that_cgi_takes_for_another_one_is_treated_as_that_one() -> None:
    others = (
        "X_HTTP_Method-Override: DELETE",
        "X_Original_URL: /admin",
        "Transfer_Encoding: chunked",
        "X_Api_Key: mine",
    )
    lines = sent(request("/x", *others, "Connection: x_gone", "X_Gone: 1", "X_Other: 1"), ("X-Api-Key", "key"))
    assert lines[2:] == ["X_Other: 1", "X-Api-Key: key"]


def test_headers_of_one_connection_are_not_passed_on() -> None:
    hop = (
        "Keep-Alive: 5",
        "Proxy-Authorization: x",
        "Proxy-Connection: y",
        "TE: trailers",
        "Trailer: X",
        "Expect: 100-continue",
    )
    assert sent(request("/x", *hop, "Cookie: a=b", "Content-Length: 3"))[2:] == [
        "Cookie: a=b",
        "Authorization: Bearer token",
    ]
    back = answered(
        "Connection: X-Mine",
        "X-Mine: 1",
        "Keep-Alive: 5",
        "Transfer-Encoding: chunked",
        "Set-Cookie: a",
        "Set-Cookie: b",
    )
    assert back == ["HTTP/1.1 200 X", "Set-Cookie: a", "Set-Cookie: b"]


@pytest.mark.parametrize(
    ("lines", "asks"),
    [
        (("Connection: keep-alive, Upgrade", "Upgrade: websocket"), True),
        (("Connection: Upgrade", "Upgrade: SPDY/3.1"), True),
        (("Upgrade: websocket",), False),
        (("Connection: Upgrade",), False),
        (("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"), False),
        (("Connection: Upgrade", "Upgrade: HTTP/2.0"), False),
        (("Connection: Upgrade", "Upgrade: websocket, h2c"), False),
        (("Connection: Upgrade", "Upgrade: TLS/1.0"), False),
        (("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 3"), False),
    ],
)
def test_only_another_protocol_than_http_may_be_asked_for(lines: tuple[str, ...], *, asks: bool) -> None:
    head = request("/x", *lines)
    assert upgrades(head) is asks
    assert any(line.startswith("Upgrade:") for line in sent(head)) is asks


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("https://api.example/api/v2/x?y", "/x?y"),
        ("/api/v2/x", "/x"),
        ("https://api.example/other", "https://api.example/other"),
        ("https://api.example.evil/api/v2/x", "https://api.example.evil/api/v2/x"),
        ("https://other.example/api/v2/x", "https://other.example/api/v2/x"),
        ("//api/v2/x", "//api/v2/x"),
        ("https://api.example/api/v2//evil.example/x", "https://api.example/api/v2//evil.example/x"),
        ("/api/v2/\\evil.example/x", "/api/v2/\\evil.example/x"),
        ("x", "x"),
    ],
)
def test_a_redirect_to_the_upstream_leads_through_the_proxy_and_another_is_passed_on(location: str, seen: str) -> None:
    assert answered(f"Location: {location}", status=302)[1] == f"Location: {seen}"
    assert answered(f"Location: {location}", status=200)[1] == f"Location: {location}"


HOSTS = hosts_of("127.0.0.1", 8081)


@pytest.mark.parametrize("host", ["localhost:8081", "127.0.0.1:8081", "[::1]:8081", "LOCALHOST:8081"])
def test_the_names_of_this_machine_are_hosts_of_a_port(host: str) -> None:
    check_browser(request(host=host), HOSTS)
    check_browser(request("/", f"Origin: http://{host}", "Sec-Fetch-Site: same-origin", host=host), HOSTS)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8081", "localhost", "localhost:8082", "127.0.0.1.evil:8081", "localhost.:8081"],
)
def test_a_name_that_somebody_else_gave_this_machine_is_refused(host: str) -> None:
    with pytest.raises(NotForwarded) as caught:
        check_browser(request(host=host), HOSTS)
    assert caught.value.status == 421


@pytest.mark.parametrize(
    "line",
    [
        *(
            "Origin: https://evil.example",
            "Origin: null",
            "Origin: http://localhost:3000",
            "Origin: https://localhost:8081",
        ),
        *("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"),
    ],
)
def test_a_page_that_the_proxy_did_not_serve_is_refused(line: str) -> None:
    with pytest.raises(NotForwarded) as caught:
        check_browser(request("/", line), HOSTS)
    assert caught.value.status == 403


def test_a_port_is_left_out_at_80_and_an_own_address_is_a_host() -> None:
    assert {b"localhost", b"127.0.0.5", b"127.0.0.5:80"} <= hosts_of("127.0.0.5", 80)
    assert b"[::1]:8081" in hosts_of("::1", 8081)
    check_browser(read_request(b"GET / HTTP/1.0\r\n\r\n"), HOSTS)
