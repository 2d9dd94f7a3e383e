# One grant at one provider that are in no configuration, checked as if they were: for `brokerctl recipe try`.
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brokerd.config.grants import read_grant
from brokerd.config.providers import read_provider
from brokerd.config.settings import GrantSettings
from brokerd.config.tables import Recipes, Within, exposure, read_toml

TRIAL = "try"  # the name of both


def trial(
    recipe: Path, provider: Mapping[str, Any], grant: Mapping[str, Any], credentials: Path | None
) -> GrantSettings:
    """The keys of both tables, and a file with the grant's credentials. Raises ConfigError."""
    at = read_provider(TRIAL, {"dialect": recipe.stem, **provider}, Recipes(recipe.parent), None)
    raw, exposed = (read_toml(credentials), exposure(credentials)) if credentials else ({}, None)
    with Within(credentials or Path(), ""):
        return read_grant(TRIAL, {"provider": TRIAL, **grant, "credentials": raw}, {TRIAL: at}, exposed, (TRIAL,))
