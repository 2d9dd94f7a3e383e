# The pages that a browser shows during a login. They load nothing and run no script.
from __future__ import annotations

import base64
import hashlib
from html import escape

STYLE = """
:root{color-scheme:light dark;--ground:#f4f5f7;--card:#fff;--text:#1c1f24;--soft:#5c6370;--tone:#1f7a4d}
.bad{--tone:#b3261e}.open{--tone:#8a5a00}
@media(prefers-color-scheme:dark){:root{--ground:#15171a;--card:#1e2125;--text:#eceef1;--soft:#9aa1ad;--tone:#56c48c}
.bad{--tone:#ff8a80}.open{--tone:#f2b84b}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--ground);
color:var(--text);font:1.0625rem/1.55 system-ui,sans-serif}
main{width:100%;max-width:30rem;padding:2.5rem;background:var(--card);border-radius:.75rem;
border-top:.3rem solid var(--tone);box-shadow:0 1px 3px #0002,0 8px 24px #0001}
h1{margin:0 0 .75rem;font-size:1.5rem;line-height:1.25;color:var(--tone)}
a{color:var(--tone)}p{margin:0;overflow-wrap:anywhere}p+p{margin-top:1.25rem;color:var(--soft);font-size:.9375rem}
"""
DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{DIGEST}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
GOOD, BAD, OPEN = "good", "bad", "open"


def page(title: str, words: str, then: str, tone: str = BAD) -> bytes:
    """A whole page. It escapes its texts."""
    return _whole(title, f"<p>{escape(words)}</p><p>{escape(then)}</p>", tone)


def onward(title: str, url: str) -> bytes:
    """The page, for a file, that redirects to `url`. A file has no HTTP headers, so the page itself sets its policy."""
    place = escape(url)
    rules = escape(HEADERS["Content-Security-Policy"].replace("; frame-ancestors 'none'", ""))  # not for files
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{rules}"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={place}">'
    )
    words = f'<p>Your browser continues by itself. If it does not: <a href="{place}">continue</a>.</p>'
    return _whole(title, words, OPEN, head)


def _whole(title: str, body: str, tone: str, head: str = "") -> bytes:
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
        f"{head}<title>{escape(title)} – brokerd</title><style>{STYLE}</style></head>\n"
        f'<body class="{tone}"><main><h1>{escape(title)}</h1>{body}</main>'
        "</body>\n</html>\n"
    ).encode()


def done(grant: str, subject: str | None) -> bytes:
    who = f"You are logged in as {subject}, and " if subject else "You are logged in, and "
    return page("Done", f"{who}brokerd now has the tokens of {grant}.", "You can close this window.", GOOD)


def asks(grant: str) -> bytes:
    words = f"Your terminal asks a question about the login for {grant}. Nothing has changed yet."
    return page("One more question", words, "Go back to the terminal; you can close this window.", OPEN)


def failed(reason: str) -> bytes:
    return page("The login failed", reason, "Nothing has changed. To try again, go back to your terminal.")
