# Reads answers as a recipe says: where tokens stand, how long they live, and what a refusal means.
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from brokerd.core.exchange.outcomes import (
    Blame,
    Cause,
    Done,
    IssuedToken,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Tokens,
)
from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.secret import Secret
from brokerd.dialects import answer_body, answer_outcomes, answer_values
from brokerd.dialects.answer_body import Members
from brokerd.dialects.answer_fields import NOTHING, Wanted, hiding, with_fields
from brokerd.dialects.recipe.answer import AnswerFile, TokenPlace
from brokerd.dialects.recipe.file import ErrorsFile, RecipeRequest

At = str | list[str] | None  # where something stands: a path, or a list of which the first that is there counts


def tokens(
    operation: RecipeRequest,
    errors: ErrorsFile,
    response: Response,
    request: Request,
    fields: Wanted = NOTHING,
    held: AccessToken | None = None,
) -> Outcome:
    """What an answer to a request for tokens means. One that cannot be used does not take its refresh token with it
    (law 3). `held`: the token whose life the request extends."""
    # Tokens in headers may come with no body at all.
    found = answer_body.plain(response) if response.body.strip() else {}
    request = hiding(request, (_find(at, found or {}, response) for at in operation.answer.fields.values()))
    later = answer_outcomes.later(response, operation.key, request)
    if not 200 <= response.status < 300 and later is None:
        return refusal(operation, errors, response, request)
    access, refresh, readable = _both(operation.answer, found or {}, response, held)
    if later is None and access is None and refresh is None:
        found = answer_body.wrapped(response) or {}
        access, refresh, readable = _both(operation.answer, found, response, held)
    if later is not None:
        whole = response.status >= 500 and access is not None and refresh is not None
        return replace(later, refresh_token=refresh) if whole else later
    lacks_access = access is None and (operation.answer.access_token is not None or refresh is None)
    if found is None or not readable or lacks_access:
        return answer_outcomes.strange(response, operation.key, request, refresh)
    places = operation.answer
    token_type = answer_values.token_type(_find(places.token_type, found, response))
    brought = Tokens(access, refresh, token_type, answer_values.scope(_find(places.scope, found, response)))
    members = found
    return with_fields(brought, fields, lambda name: _find(places.fields.get(name), members, response), operation.key)


def revoked(operation: RecipeRequest, errors: ErrorsFile, response: Response, request: Request) -> Outcome:
    """What an answer to a revocation means."""
    if later := answer_outcomes.later(response, operation.key, request):
        return later
    if not 200 <= response.status < 300:
        return refusal(operation, errors, response, request)
    if response.body.strip() and answer_body.json_object(response) is None:
        return answer_outcomes.strange(response, operation.key, request)
    return Done(operation.ends_both)


def refusal(operation: RecipeRequest, errors: ErrorsFile, response: Response, request: Request) -> Outcome:
    """An error answer. It is the provider's if the recipe marks its status, and if a reason stands where the recipe
    says that one does (law 12)."""
    found = answer_body.json_object(response)
    if errors.reason is None:
        own, text = found is not None or not response.body.strip(), ""
    else:
        said = _find(errors.reason, found or {}, response)
        own, text = said is not None, said if isinstance(said, str) else json.dumps(said)
    meaning = operation.errors.get(response.status)
    if isinstance(meaning, Mapping):
        meaning = meaning.get(text)
    if not own or meaning is None:
        return answer_outcomes.strange(response, operation.key, request)
    more = _find(errors.message, found or {}, response)
    words = reason(f"{text}: {more}" if isinstance(more, str) else text, request.secrets)
    told = answer_outcomes.refused(response, operation.key, f": {words}" if words else "")
    match meaning:
        case "rejected":
            return Rejected(told)
        case "done":
            return Done()
        case "retry":
            return RetryLater(told, Cause.LIMITED, answer_values.retry_after(response))
        case _:
            blames = Blame.CLIENT if response.status == 401 else Blame.REQUEST
            blames = Blame.PASSWORD if request.password else blames
            return Misconfigured(told, blames, answer_values.retry_after(response))


def _both(
    places: AnswerFile, found: Members, response: Response, held: AccessToken | None
) -> tuple[IssuedToken | None, IssuedToken | None, bool]:
    """Access token, refresh token, and whether whatever stands where they should can be used."""
    tokens, readable = [], True
    for place in (places.access_token, places.refresh_token):
        place = TokenPlace(at=place) if isinstance(place, str) else place
        if place is not None and place.kept:
            tokens.append(_extended(place, held, found, response))
            continue
        value = _find(place.at, found, response) if place else None
        readable = readable and not answer_values.is_unreadable(value)
        tokens.append(_token(place, answer_values.token(value), found, response))
    return tokens[0], tokens[1], readable


def _token(place: TokenPlace | None, value: str | None, found: Members, response: Response) -> IssuedToken | None:
    if place is None or value is None:
        return None
    identifier = answer_values.identifier(_find(place.id, found, response))
    lifetime, odd = _lifetime(place, value, found, response)
    return IssuedToken(Secret(value), lifetime, identifier, odd)


def _extended(place: TokenPlace, held: AccessToken | None, found: Members, response: Response) -> IssuedToken | None:
    """The token that is held, with the life that the answer gives it. An answer that names none is not about it."""
    if held is None or (lifetime := _named_lifetime(place, found, response)[0]) is None:
        return None
    return IssuedToken(held.value, lifetime, held.id)


def _lifetime(place: TokenPlace, value: str, found: Members, response: Response) -> tuple[float | None, str | None]:
    """The lifetime, and a warning if it is hard to believe. It comes from the field that the recipe names, else from
    the JWT itself, else from the recipe's `lifetime`."""
    lifetime, odd = _named_lifetime(place, found, response)
    if lifetime is None:
        lifetime = answer_values.lifetime_of_jwt(value, response)
    return (place.lifetime if lifetime is None else lifetime), odd


def _named_lifetime(place: TokenPlace, found: Members, response: Response) -> tuple[float | None, str | None]:
    lifetime = odd = None
    if at := place.expires_in or place.expires_in_ms:
        unit = 1.0 if place.expires_in else 0.001
        named = _find(at, found, response)
        lifetime, odd = answer_values.lifetime_in(named, unit=unit), answer_values.odd_lifetime(named, unit=unit)
    elif place.expires_at:
        lifetime = answer_values.lifetime_until(_find(place.expires_at, found, response), response)
    return lifetime, odd


def _find(path: At, found: Members, response: Response) -> object:
    """What stands at a path; of a list of paths, the first that is there."""
    for each in [path] if isinstance(path, str) else path or []:
        if each.startswith("header:"):
            value: object = response.header(each.removeprefix("header:").lower())
        else:
            value = _walk(each, found)
        if value is not None:
            return value
    return None


def _walk(path: str, found: object) -> object:
    for step in path.split("."):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and INDEX.fullmatch(step) and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


INDEX = re.compile(r"[0-9]{1,7}")  # of an array in an answer
