# python -m tests.stress.torture: so many rounds, or one of them again.
from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import trio

from tests.real.servers import OidcProvider, SimpleJwt, UnavailableError, oidc_provider, simplejwt
from tests.scenario.daemon.harness import Ended, remove
from tests.stress.torture.plan import drawn
from tests.stress.torture.rounds import Broken, Mortal, Torture
from tests.stress.torture.world import LIFETIME, REFRESH_LIFETIME, world


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.stress.torture", description=__doc__)
    made.add_argument("--times", type=int, default=200, help="how many rounds (default: %(default)s)")
    made.add_argument("--seed", type=int, help="what every choice is drawn from (default: another one each time)")
    made.add_argument("--round", type=int, help="play this one alone")
    arguments = made.parse_args()
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    numbers = range(arguments.times) if arguments.round is None else range(arguments.round, arguments.round + 1)
    folder = Path(tempfile.mkdtemp(prefix="brokerd-"))
    ttl, refresh_ttl = LIFETIME, REFRESH_LIFETIME
    try:
        with (
            oidc_provider(folder / "oidc-provider", access_ttl=ttl, refresh_ttl=refresh_ttl) as oidc,
            simplejwt(folder / "simplejwt", access_ttl=ttl, refresh_ttl=refresh_ttl) as jwt,
        ):
            return trio.run(play, seed, numbers, folder, oidc, jwt)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        remove(folder)


async def play(seed: int, numbers: range, folder: Path, oidc: OidcProvider, jwt: SimpleJwt) -> int:
    begun = time.monotonic()
    async with trio.open_nursery() as nursery:
        made = await world(nursery, oidc, jwt)
        brokerd = Mortal(folder / "brokerd", nursery)
        torture = Torture(brokerd, made)
        print(f"seed {seed}: {len(numbers)} rounds, {len(made.grants)} grants", flush=True)
        try:
            await torture.prepare()
            for number in numbers:
                if not await played(torture, seed, number):
                    return 1
        finally:
            with trio.CancelScope(shield=True):
                await brokerd.close()
            nursery.cancel_scope.cancel()
    print(f"\n{torture.report()}\n{time.monotonic() - begun:.0f} s")
    return 0


async def played(torture: Torture, seed: int, number: int) -> bool:
    """Whether the round ended as it has to; if not, it is shown."""
    brokerd, begun, log = torture.brokerd, time.monotonic(), len(torture.brokerd.log)
    round_ = drawn(seed, number, sorted(torture.world.grants))
    broken: list[BaseException] = []
    try:
        said = await torture.play(round_)
    except* (Broken, Ended, trio.TooSlowError) as group:
        broken += group.exceptions
    if broken:
        print(brokerd.log[log:], *(f"BROKEN: {each!r}" for each in broken), sep="\n")
        print(f"in {round_}\nagain: python -m tests.stress.torture --seed {seed} --round {number}", flush=True)
        return False
    print(f"round {number} ({time.monotonic() - begun:.1f} s): {said}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
