# share: gives a caller a shared token, memory in which it reads a grant's token as long as it may have it. What that
# memory says is decided by server/shared_tokens.py.
from __future__ import annotations

from typing import Any

from brokerd.core.shared_token import LAYOUT, SIZE
from brokerd.server.methods.method import AnswerWithDescriptor
from brokerd.server.session import CallerSession
from brokerd.server.shared_tokens import SharedTokens


class ShareMethod:
    def __init__(self, shared: SharedTokens) -> None:
        self._shared = shared

    def share(self, session: CallerSession, params: dict[str, Any]) -> AnswerWithDescriptor:
        """The caller has the right to get the grant's token. Raises Failure."""
        descriptor = self._shared.open(session, params["grant"])
        return AnswerWithDescriptor({"grant": params["grant"], "layout": LAYOUT, "size": SIZE}, descriptor)
