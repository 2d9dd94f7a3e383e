# login, login_answer, login_wait: a person logs in, one prompt after the other. A login ends with the connection that
# began it; any connection of the same user may go on with it.
from __future__ import annotations

from typing import Any

from brokerd.broker import Broker
from brokerd.core.failure import Failure
from brokerd.core.policy import Action
from brokerd.core.secret import Secret
from brokerd.logins import SECOND_VISITOR, Login
from brokerd.methods.parameters import WAIT
from brokerd.methods.session import Later, Rights, Session


class LoggingIn:
    def __init__(self, broker: Broker, rights: Rights) -> None:
        self._broker = broker
        self._rights = rights

    def login(self, session: Session, params: dict[str, Any]) -> Later:
        grant = params["grant"]
        self._rights.require(session, Action.LOGIN, grant, "login")
        held = self._broker.held(grant)
        if held.blocked or self._broker.flights.stopping:
            raise self._broker.failure(held)

        names_account = params.get("account", False)
        login = self._broker.logins.begin(held, session.caller.uid, names_account=names_account)
        session.logins.add(login.id)
        return lambda: self._seen(session, login, 0, params, "login")

    def answer(self, session: Session, params: dict[str, Any]) -> Later:
        login = self._mine(session, params, "login_answer")
        if params["answer"].get("alarm") == SECOND_VISITOR:
            self._broker.logins.alarm(login)
        else:
            login.answer(params["step"], {name: Secret(value) for name, value in params["answer"].items()})
        return lambda: self._seen(session, login, params["step"], params, "login_answer")

    def wait(self, session: Session, params: dict[str, Any]) -> Later:
        login = self._mine(session, params, "login_wait")
        return lambda: self._seen(session, login, params["step"], params, "login_wait")

    def end(self, session: Session) -> None:
        """The connection is gone, and with it the logins that it began."""
        for name in session.logins:
            self._broker.logins.forget(name)

    def _mine(self, session: Session, params: dict[str, Any], method: str) -> Login:
        login = self._broker.logins.find(params["login"], session.caller.uid)
        self._rights.require(session, Action.LOGIN, login.held.name, method)
        return login

    async def _seen(
        self, session: Session, login: Login, step: int, params: dict[str, Any], method: str
    ) -> dict[str, object]:
        """What there is to see after that step, for a caller who may still see it then (law 9)."""
        failure = None
        try:
            await login.beyond(step, params.get("wait", WAIT))
        except Failure as caught:
            failure = caught
        finally:
            if login.has_ended:
                self._broker.logins.forget(login.id)
        await self._rights.require_again(session, Action.LOGIN, login.held.name, method)
        if failure is not None:
            raise failure
        prompt = login.prompt
        shown = None if prompt is None else {"kind": prompt.kind, "waits": prompt.waits, **prompt.shown}
        return {"login": login.id, "step": login.step, "prompt": shown, "done": login.result}
