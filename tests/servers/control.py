# How another process asks about the providers and breaks them: GET /_counts, POST /_faults. For demos, benchmarks
# and tests that start `python -m tests.servers`; tests in the same process use the objects.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tests.servers import body
from tests.servers.body import Malformed
from tests.servers.http import Answer, Request, Response, Server, json_response
from tests.servers.provider import Provider

VERBS = (
    "clear",
    "settings",
    "down",
    "fail_with",
    "drop",
    "drop_after_request",
    "garbage",
    "hold",
    "release",
    "forget_access_tokens",
)


class Control:
    """Mounted at the root. `POST /_faults` takes `{"provider": NAME or "all", VERB: argument, …}`:

    `down`: bool · `fail_with`, `drop`, `drop_after_request`, `garbage`, `hold`: an object of that method's arguments ·
    `settings`: an object of settings to change · `clear`, `release`, `forget_access_tokens`: true.
    """

    down = False

    def __init__(self, providers: Mapping[str, Provider[Any]]) -> None:
        self.providers = providers

    def mounted(self, server: Server, url: str) -> None:
        pass

    async def answer(self, request: Request) -> Answer:
        match request.method, request.path:
            case "GET", "/_counts":
                counts = {name: provider.snapshot() for name, provider in self.providers.items()}
                return json_response(200, counts)
            case "POST", "/_faults":
                return self._faults(request)
        return json_response(404, {"error": "expected GET /_counts or POST /_faults"})

    def _faults(self, request: Request) -> Response:
        try:
            orders = body.json_object(request)
            for provider in self._named(orders.pop("provider", None)):
                for verb, argument in orders.items():
                    _carry_out(provider, verb, argument)
        except (Malformed, TypeError, ValueError) as error:
            return json_response(400, {"error": str(error)})
        return json_response(200, {})

    def _named(self, name: object) -> list[Provider[Any]]:
        if name == "all":
            return list(self.providers.values())
        if name not in self.providers:
            raise ValueError(f"provider: expected all or one of {', '.join(self.providers)}, found {name!r}")
        return [self.providers[str(name)]]


def _carry_out(provider: Provider[Any], verb: str, argument: object) -> None:
    if verb not in VERBS:
        raise ValueError(f"expected one of {', '.join(VERBS)}, found {verb!r}")
    arguments = argument if isinstance(argument, dict) else {}
    match verb:
        case "clear":
            provider.clear_faults()
        case "down":
            provider.down = bool(argument)
        case "release":
            provider.release()
        case "forget_access_tokens":
            provider.forget_access_tokens()
        case "settings":
            known = {setting.name for setting in fields(provider.settings)} - {"now"}
            if not set(arguments) <= known:
                raise ValueError(f"settings: expected some of {', '.join(sorted(known))}")
            for name, value in arguments.items():
                setattr(provider.settings, name, value)
        case _:
            getattr(provider, verb)(**arguments)
