# login, login_answer, login_wait: a person logs in, prompt by prompt. A login ends with the connection that began it;
# until then, any connection of the same user can answer its prompts.
from __future__ import annotations

from typing import Any

from brokerd.broker.broker import TokenBroker
from brokerd.broker.logins import SECOND_VISITOR, Login
from brokerd.core.access.policy import Action
from brokerd.core.errors import Failure
from brokerd.core.secret import Secret
from brokerd.server.methods.method import AnswerLater
from brokerd.server.methods.parameters import WAIT
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession


class LoginMethods:
    def __init__(self, broker: TokenBroker, rights: Rights) -> None:
        self._broker = broker
        self._rights = rights

    def login(self, session: CallerSession, params: dict[str, Any]) -> AnswerLater:
        grant = params["grant"]
        live = self._broker.grant(grant)
        if live.blocked or self._broker.stopping:
            raise self._broker.failure(live)
        names_account = params.get("account", False)
        login = self._broker.logins.begin(live, session.caller.uid, names_account=names_account)
        session.logins.add(login.id)
        return AnswerLater(lambda: self._shown(session, login, 0, params, "login"))

    def answer(self, session: CallerSession, params: dict[str, Any]) -> AnswerLater:
        login = self._find(session, params, "login_answer")
        if params["answer"].get("alarm") == SECOND_VISITOR:
            self._broker.logins.alarm(login)
        else:
            login.answer(params["step"], {name: Secret(value) for name, value in params["answer"].items()})
        return AnswerLater(lambda: self._shown(session, login, params["step"], params, "login_answer"))

    def wait(self, session: CallerSession, params: dict[str, Any]) -> AnswerLater:
        login = self._find(session, params, "login_wait")
        return AnswerLater(lambda: self._shown(session, login, params["step"], params, "login_wait"))

    def end(self, session: CallerSession) -> None:
        """The connection has ended, and with it the logins that it began."""
        for name in session.logins:
            self._broker.logins.forget(name)

    def _find(self, session: CallerSession, params: dict[str, Any], method: str) -> Login:
        login = self._broker.logins.find(params["login"], session.caller.uid)
        self._rights.require(session, Action.LOGIN, login.grant.name, method)
        return login

    async def _shown(
        self, session: CallerSession, login: Login, step: int, params: dict[str, Any], method: str
    ) -> dict[str, object]:
        """The login as it is after that step, if the caller still has the right to see it then (law 9)."""
        failure = None
        try:
            await login.wait_past(step, params.get("wait", WAIT))
        except Failure as caught:
            failure = caught
        finally:
            if login.has_ended:
                self._broker.logins.forget(login.id)
        await self._rights.require_again(session, Action.LOGIN, login.grant.name, method)
        if failure is not None:
            raise failure
        prompt = login.prompt
        shown = None if prompt is None else {"kind": prompt.kind, "waits": prompt.waits, **prompt.shown}
        return {"login": login.id, "step": login.step, "prompt": shown, "done": login.result}
