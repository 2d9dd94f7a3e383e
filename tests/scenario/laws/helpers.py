# What the tests of the laws do with a broker on virtual time: import a grant, wait for a state, take a failure.
from __future__ import annotations

from pathlib import Path

import pytest
import trio

from brokerd.core.errors import Failure
from brokerd.core.secret import Secret
from tests.scenario.laws.world import World


async def until(condition: object, most: float = 1e7) -> None:
    """Wait, in virtual time, until the condition holds."""
    with trio.fail_after(most):
        while not condition():  # type: ignore[operator]
            await trio.sleep(0.25)


async def imported(made: World) -> str:
    """Give the grant a refresh token; the value of the first access token that it brought."""
    await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
    return (await made.broker.get("app")).value.reveal()


async def failure_of(made: World, name: str = "app", **params: object) -> Failure:
    with pytest.raises(Failure) as caught:
        await made.broker.get(name, **params)  # type: ignore[arg-type]
    return caught.value


def password_file(folder: Path, password: str) -> Path:
    file = folder / "password"
    file.write_text(password)
    file.chmod(0o600)
    return file
