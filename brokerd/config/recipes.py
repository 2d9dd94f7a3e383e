# Recipe files by name: the operator's own beside the configuration, and those that come with brokerd.
from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from brokerd.config.toml_files import NAME, read_toml, refuse_open, within
from brokerd.core.validation import ConfigError, expected
from brokerd.dialects.recipe.file import Recipe, read_recipe

BUILT_IN_RECIPES = Path(__file__).parent.parent / "dialects" / "recipes"


class Recipes:
    """Recipes by name, each read once."""

    def __init__(self, own: Path) -> None:
        self._files = recipe_files(own)
        self._read: dict[str, Recipe] = {}

    def get(self, name: str) -> Recipe:
        if name not in self._files:
            raise expected(f"one of {', '.join(('oauth2', 'static', *sorted(self._files)))}", name, key="dialect")
        return self._read.get(name) or self._read.setdefault(name, load_recipe(self._files[name]))


def recipe_files(own: Path) -> dict[str, Path]:
    """Recipes by name: the operator's own, in `own`, win over those that come with brokerd."""
    found = sorted(BUILT_IN_RECIPES.glob("*.toml"))
    with suppress(OSError):  # a folder that we may not read
        found += sorted(own.glob("*.toml"))
    return {file.stem: file for file in found}


def load_recipe(file: Path) -> Recipe:
    """One recipe. Raises ConfigError."""
    with within(file, ""):
        if not NAME.fullmatch(file.stem):
            words = (
                "a recipe has the name of its file: expected letters, digits, dots, dashes and underscores, then .toml"
            )
            raise ConfigError(words)
        raw = read_toml(file)
        refuse_open(file)
        return read_recipe(file.stem, raw)
