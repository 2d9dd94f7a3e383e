# Reading answers as a recipe says: where tokens stand, what their lives are, and what a refusal means.
# What was asked, and whether it is asked again, is not known here.
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from brokerd.core.exchange import Request, Response
from brokerd.core.outcome import Blame, Cause, Done, Issued, Misconfigured, Outcome, Rejected, RetryLater, Token, Tokens
from brokerd.core.reason import reason
from brokerd.core.secret import Secret
from brokerd.dialects import answer, body
from brokerd.dialects.body import Members
from brokerd.dialects.recipe_file import AnswerFile, Operation, Place

At = str | list[str] | None  # where something stands: a path, or a list of which the first that is there counts


def tokens(operation: Operation, reason_at: At, response: Response, request: Request) -> Outcome:
    """What an answer to a request for tokens means. One that cannot be used does not take its refresh token with it
    (law 3)."""
    later = answer.later(response, operation.key, request)
    if not 200 <= response.status < 300 and later is None:
        return refusal(operation, reason_at, response, request)
    # Tokens in headers may come with no body at all.
    found = body.plain(response) if response.body.strip() else {}
    access, refresh, readable = _both(operation.answer, found or {}, response)
    if later is None and access is None and refresh is None:
        found = body.wrapped(response) or {}
        access, refresh, readable = _both(operation.answer, found, response)
    if later is not None:
        whole = response.status >= 500 and access is not None and refresh is not None
        return replace(later, refresh_token=refresh) if whole else later
    lacks_access = access is None and (operation.answer.access_token is not None or refresh is None)
    if found is None or not readable or lacks_access:
        return answer.strange(response, operation.key, request, refresh)
    places = operation.answer
    token_type = answer.token_type(_find(places.token_type, found, response))
    return Issued(Tokens(access, refresh, token_type, answer.scope(_find(places.scope, found, response))))


def revoked(operation: Operation, reason_at: At, response: Response, request: Request) -> Outcome:
    """What an answer to a revocation means."""
    if later := answer.later(response, operation.key, request):
        return later
    if not 200 <= response.status < 300:
        return refusal(operation, reason_at, response, request)
    if response.body.strip() and body.json_object(response) is None:
        return answer.strange(response, operation.key, request)
    return Done(operation.ends_both)


def refusal(operation: Operation, reason_at: At, response: Response, request: Request) -> Outcome:
    """An error answer. It is the provider's if the recipe marks its status, and if a reason stands where the recipe
    says that one does (law 12)."""
    found = body.json_object(response)
    if reason_at is None:
        own, text = found is not None or not response.body.strip(), ""
    else:
        said = _find(reason_at, found or {}, response)
        own, text = said is not None, said if isinstance(said, str) else json.dumps(said)
    meaning = operation.errors.get(response.status)
    if isinstance(meaning, Mapping):
        meaning = meaning.get(text)
    if not own or meaning is None:
        return answer.strange(response, operation.key, request)
    words = reason(text, request.secrets)
    told = answer.refused(response, operation.key, f": {words}" if words else "")
    match meaning:
        case "rejected":
            return Rejected(told)
        case "done":
            return Done()
        case "retry":
            return RetryLater(told, Cause.LIMITED, answer.retry_after(response))
        case _:
            blames = Blame.CLIENT if response.status == 401 else Blame.REQUEST
            return Misconfigured(told, Blame.PASSWORD if request.password else blames, answer.retry_after(response))


def _both(places: AnswerFile, found: Members, response: Response) -> tuple[Token | None, Token | None, bool]:
    """Access token, refresh token, and whether whatever stands where they should can be used."""
    tokens, readable = [], True
    for place in (places.access_token, places.refresh_token):
        place = Place(at=place) if isinstance(place, str) else place
        value = _find(place.at, found, response) if place else None
        readable = readable and not answer.is_unreadable(value)
        tokens.append(_token(place, answer.token(value), found, response))
    return tokens[0], tokens[1], readable


def _token(place: Place | None, value: str | None, found: Members, response: Response) -> Token | None:
    if place is None or value is None:
        return None
    identifier = answer.identifier(_find(place.id, found, response))
    lifetime, odd = _lifetime(place, value, found, response)
    return Token(Secret(value), lifetime, identifier, odd)


def _lifetime(place: Place, value: str, found: Members, response: Response) -> tuple[float | None, str | None]:
    """By the field that the recipe names; where it names none, or the answer has none, by the JWT itself; at last by
    what the recipe says of such answers. And what is hard to believe of it."""
    lifetime = odd = None
    if at := place.expires_in or place.expires_in_ms:
        unit = 1.0 if place.expires_in else 0.001
        named = _find(at, found, response)
        lifetime, odd = answer.lifetime_in(named, unit=unit), answer.odd_lifetime(named, unit=unit)
    elif place.expires_at:
        lifetime = answer.lifetime_until(_find(place.expires_at, found, response), response)
    if lifetime is None:
        lifetime = answer.lifetime_of_jwt(value, response)
    return (place.lifetime if lifetime is None else lifetime), odd


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
