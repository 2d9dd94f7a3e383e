# What a method of the protocol is: one row of the table, and the two kinds of answer that its handler can give.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from brokerd.core.access.policy import Action
from brokerd.server.methods.parameters import Check
from brokerd.server.session import CallerSession

MAX_IN_FLIGHT = 128  # requests that may wait on one connection
NOBODY_ASKS, HANDLER_ASKS, ADMINISTRATION = "nobody asks", "the handler asks", "administration"  # besides actions

Params = dict[str, Any]
Handler = Callable[[CallerSession, Params], object]


@dataclass(frozen=True, slots=True)
class AnswerLater:
    """A handler returns this, and not a result, if the answer takes time: whoever asked awaits `bring`. Until then the
    request counts as `weight` waiting ones. A large answer is made only when the user has read the one before."""

    bring: Callable[[], Awaitable[object]]
    weight: int = 1
    is_large: bool = False


class AnswerWithDescriptor(NamedTuple):
    """A result, and the file descriptor that the client gets with it (SCM_RIGHTS). Whoever sends it closes ours."""

    result: object
    descriptor: int


class Method(NamedTuple):
    """One method.

    `right`: what the caller needs before the handler runs: an action with the grant that the request names, or the
    right to administer brokerd. The handler asks the rules itself if that depends on more; for `hello` nobody asks.
    `again`: the rules are asked again when an answer that took time is written (law 9).
    `cost`: as how many requests it counts beyond one. `weight`: as how many waiting requests.
    `is_large`: its answer may have megabytes. `while_locked`: it is answered while brokerd is locked.
    `audited`: a request that fails is written to the audit log. `durable`: it is answered only when everything that the
    audit log says about it is on the disk."""

    handler: Handler
    parameters: Mapping[str, Check]
    required: tuple[str, ...] = ()
    right: Action | str = HANDLER_ASKS
    again: bool = False
    cost: float | Callable[[Params], float] = 0.0
    weight: Callable[[Params], int] | None = None
    is_large: bool = False
    while_locked: bool = False
    audited: bool = False
    durable: bool = False


def later(handler: Callable[[CallerSession, Params], Awaitable[object]]) -> Handler:
    """A handler whose answer always takes time."""
    return lambda session, params: AnswerLater(partial(handler, session, params))
