"""A person at a browser, before the pages of oidc-provider's devInteractions: follows, fills in, submits."""

import ssl
import urllib.request
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

STEPS = 10  # pages; a login and a consent are five
TIMEOUT = 20.0  # seconds a page
LOOPBACK = ("localhost", "127.0.0.1")


@dataclass
class Form:
    action: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    url: str
    text: str

    @property
    def form(self) -> Form | None:
        reader = FormReader()
        reader.feed(self.text)
        return reader.forms[0] if reader.forms else None


class FormReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(said.get("action", "")))
        elif tag in {"input", "button"} and self.forms and "name" in said:
            self.forms[-1].fields.setdefault(said["name"], said.get("value", ""))


class Arrived(Exception):
    """The browser was sent to a place that is not there: what its address bar shows."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).hostname not in LOOPBACK:
            fp.close()
            raise Arrived(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Browser:
    """Follows redirects and keeps cookies; straight to loopback, whatever proxy the environment names."""

    def __init__(self, ca_file: Path) -> None:
        self.opener = urllib.request.build_opener(
            Redirects(),
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)),
            urllib.request.HTTPCookieProcessor(),
        )

    def open(self, url: str, fields: dict[str, str] | None = None) -> Page:
        body = None if fields is None else urlencode(fields).encode()
        with self.opener.open(url, body, TIMEOUT) as response:
            return Page(response.url, response.read().decode())

    def submit(self, page: Page, form: Form) -> Page:
        return self.open(urljoin(page.url, form.action), form.fields)


def log_in(browser: Browser, url: str, *, user: str, deny: bool = False) -> Page:
    """A login, from the address that a person was given to where it comes back. Raises Arrived if nothing is there."""
    page = browser.open(url)
    for _ in range(STEPS):
        if urlsplit(page.url).hostname == "127.0.0.1":
            return page
        if deny:
            return browser.open(f"{page.url}/abort")
        form = page.form
        assert form is not None, page
        if "login" in form.fields:
            form.fields.update(login=user, password="any")
        page = browser.submit(page, form)
    raise AssertionError(page)


def approve_device(url: str, ca_file: Path, user_code: str, *, user: str, deny: bool) -> None:
    """Raises AssertionError when the pages lead nowhere."""
    browser = Browser(ca_file)
    page = browser.open(f"{url}/device?user_code={quote(user_code)}")
    for _ in range(STEPS):
        if deny and "/interaction/" in urlsplit(page.url).path:
            browser.open(f"{page.url}/abort")
            return
        form = page.form
        if form is None:
            break
        form.fields.pop("abort", None)
        if "login" in form.fields:
            form.fields.update(login=user, password="any")
        elif "xsrf" in form.fields:
            form.fields.update(user_code=user_code)
        page = browser.submit(page, form)
    assert "Sign-in Success" in page.text, page
