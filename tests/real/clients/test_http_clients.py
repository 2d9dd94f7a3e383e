# wget, and languages with what they bring along: the very blocks of docs/use-with.md, against an API of ours.
from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.real.clients.conftest import GRANT, Machine, needs
from tests.servers import IX_API_KEY

PAGE = Path(__file__).parents[3] / "docs" / "use-with.md"
PROGRAMS = {
    "wget": ("wget", "sh"),
    "Python without a library": ("python3",),
    "PHP": ("php",),
    "Ruby": ("ruby",),
    "Perl": ("perl",),
}


def block(section: str) -> str:
    """The first block of code in a section of the page."""
    found = re.search(rf"^## {section}\n.*?^```\w+\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, section
    return found[1]


@pytest.mark.parametrize("section", PROGRAMS)
async def test_a_program_of_the_page_calls_an_api(machine: Machine, section: str) -> None:
    needs(PROGRAMS[section][0])
    script = machine.home / "script"
    said = block(section).replace("/run/brokerd/http.sock", str(machine.brokerd.http_socket))
    said = said.replace("reports", GRANT).replace("https://api.example/", f"{machine.provider.base_url}/me")
    script.write_text(said)
    done = await machine.run(PROGRAMS[section][-1], script, TMPDIR=str(machine.home))
    assert list(machine.written()) == [script]
    assert (done.returncode, done.stderr) == (0, "")
    assert IX_API_KEY in done.stdout
    await machine.brokerd.call("revoke", grant=GRANT, local=True)
    asked = machine.provider.count("me")
    done = await machine.run(PROGRAMS[section][-1], script)
    assert IX_API_KEY not in done.stdout
    assert machine.provider.statuses("me")[asked:] in ([], [401])
