# Recipes of a few lines, and the dialects that they make.
from __future__ import annotations

import tomli

from brokerd.dialects.recipe.dialect import RecipeDialect
from brokerd.dialects.recipe.file import Recipe, read_recipe
from tests.unit.dialects.exchange_driver import BASE

GOOD = """
credentials = ["user", "password"]
settings    = ["ttl", "tenant"]

[[issue]]
request = "POST /token"
form    = { user = "{user}", password = "{password}" }

[answer]
access_token = "token"
"""


def read(text: str) -> Recipe:
    return read_recipe("mine", tomli.loads(text))


def dialect(text: str, **settings: object) -> RecipeDialect:
    return RecipeDialect(read(text), BASE.rstrip("/"), settings)


def with_issue(*lines: str, answer_: str = 'access_token = "token"') -> str:
    body = "\n".join(lines)
    return f'credentials = ["user"]\n[[issue]]\n{body}\n[answer]\n{answer_}\n'


ISSUE = 'request = "POST /token"'
