# Recipes beside the configuration: read, preferred to the built-in ones, mistakes named with their file.
from __future__ import annotations

from pathlib import Path

from brokerd.dialects.recipe.dialect import RecipeDialect
from tests.unit.config.files import (
    DIALECTS,
    IX,
    error_of,
    loaded,
    write,
)

MINE = """
credentials = ["pin"]
settings    = ["tenant"]
[[issue]]
request = "POST /pin/{tenant}"
json    = { pin = "{pin}" }
[answer]
access_token = "token"
"""


MY_GRANT = """
[providers.mine]
dialect  = "mine"
base_url = "https://mine.example"
settings = { tenant = "t-1" }
[grants.g]
provider    = "mine"
credentials = { pin = { file = "/s" } }
"""


def test_a_recipe_beside_the_configuration_needs_no_python(main: Path) -> None:
    write(main.parent / "recipes" / "mine.toml", MINE)
    dialect = loaded(main, MY_GRANT).grants["g"].provider.dialect
    assert isinstance(dialect, RecipeDialect)
    assert dialect.recipe.credentials == ("pin",)
    assert dialect.settings == {"tenant": "t-1"}


def test_a_recipe_of_the_operator_wins_over_the_one_that_came_with_brokerd(main: Path) -> None:
    write(main.parent / "recipes" / "ix-api.toml", MINE)
    dialect = loaded(main, IX).providers["ix"].dialect
    assert isinstance(dialect, RecipeDialect)
    assert dialect.recipe.credentials == ("pin",)


def test_a_mistake_in_a_recipe_names_the_recipes_file(main: Path) -> None:
    write(main.parent / "recipes" / "mine.toml", MINE.replace("{pin}", "{pon}"))
    known = "access_token, access_token.id, audience, pin, refresh_token, refresh_token.id, resource, scope, tenant"
    assert error_of(main, MY_GRANT) == (
        f"DIR/recipes/mine.toml: issue[0].json: {{pon}} is no credential or setting of this recipe; known: {known}"
    )
    write(main.parent / "recipes" / "mine.toml", "x = [")
    assert error_of(main, MY_GRANT).startswith("DIR/recipes/mine.toml: this is not TOML: ")


def test_a_recipe_that_is_not_there_is_told_all_that_are(main: Path) -> None:
    write(main.parent / "recipes" / "other.toml", MINE)
    known = DIALECTS.replace(" simplejwt", " other, simplejwt")
    assert error_of(main, MY_GRANT) == f'CONFIG: providers.mine.dialect: expected one of {known}, found "mine"'


def test_a_grant_lacks_what_its_recipe_needs(main: Path) -> None:
    write(main.parent / "recipes" / "mine.toml", MINE)
    without = MY_GRANT.replace('credentials = { pin = { file = "/s" } }', "")
    assert error_of(main, without) == "CONFIG: grants.g.credentials: recipe mine cannot get a token without pin; add it"
