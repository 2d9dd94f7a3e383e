# The file that a browser is started with: where it lies, who can read it, and that it goes.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.ctl.browser.handoff import Handoff

SETTINGS = "#!/bin/sh\n[ \"$*\" = 'get default-web-browser' ] && echo {name}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's home, runtime directory, temporary directory and programs."""
    for name in ("run", "temporary", "bin", "snap/firefox/common"):
        (tmp_path / name).mkdir(parents=True, mode=0o700)
    for variable, name in (("HOME", ""), ("XDG_RUNTIME_DIR", "run"), ("TMPDIR", "temporary"), ("PATH", "bin")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def browser(home: Path, name: str) -> None:
    program = home / "bin/xdg-settings"
    program.write_text(SETTINGS.format(name=name))
    program.chmod(0o755)


def place(home: Path) -> str:
    """Where it lies in the home."""
    handoff = Handoff(b"page")
    folder = handoff.path.parent
    assert handoff.path.read_bytes() == b"page"
    assert [each.stat().st_mode & 0o777 for each in (handoff.path, folder)] == [0o600, 0o700]
    handoff.close()
    assert not folder.exists()
    return str(folder.parent.relative_to(home))


def test_it_lies_in_the_runtime_directory(home: Path) -> None:
    assert place(home) == "run"
    browser(home, "firefox.desktop")
    assert place(home) == "run"


def test_a_runtime_directory_that_others_write_or_that_is_not_there_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "run").chmod(0o777)
    assert place(home) == "temporary"
    for value in (str(home / "gone"), "run", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert place(home) == "temporary"


def test_a_browser_that_is_a_snap_gets_it_where_it_can_read_it(home: Path) -> None:
    browser(home, "firefox_firefox.desktop")
    assert place(home) == "snap/firefox/common"
    browser(home, "chromium_chromium.desktop")
    assert place(home) == "run", "it has no folder"
