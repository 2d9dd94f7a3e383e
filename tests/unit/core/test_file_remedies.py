# Which files and directories brokerd's remedies may change: those that are brokerd's alone, and no others.
from __future__ import annotations

import stat

import pytest

from brokerd.core.file_remedies import change, is_shared

FOLDER, STICKY, FILE = stat.S_IFDIR | 0o755, stat.S_IFDIR | 0o1777, stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("path", "mode", "shared"),
    [
        ("/tmp", STICKY, True),
        ("/srv/exchange", STICKY, True),
        ("/", FOLDER, True),
        ("/etc", FOLDER, True),
        ("/etc/passwd", FILE, True),
        ("/etc/ssl/private", FOLDER, True),
        ("/etc/ssl/private/web.key", FILE, True),
        ("/usr/local/share/x", FILE, True),
        ("/usr", FOLDER, True),
        ("/dev/null", FILE, True),
        ("/var/lib", FOLDER, True),
        ("/run", FOLDER, True),
        ("/home", FOLDER, True),
        ("/home/ann", FOLDER, True),
        ("/root", FOLDER, True),
        ("/run/user/1000", FOLDER, True),
        ("/home/ann/.config/brokerd", FOLDER, False),
        ("/home/ann/.config/brokerd/key", FILE, False),
        ("/run/user/1000/brokerd", FOLDER, False),
        ("/etc/brokerd", FOLDER, False),
        ("/etc/brokerd/secrets/app", FILE, False),
        ("/var/lib/brokerd", FOLDER, False),
        ("/var/lib/brokerd/brokerd.db", FILE, False),
        ("/user", FOLDER, False),
    ],
)
def test_what_others_depend_on_is_known(path: str, mode: int, shared: bool) -> None:
    assert is_shared(path, mode) is shared
    assert (change("chmod go-w", path, mode, "elsewhere") == "elsewhere") is shared


def test_a_path_with_a_blank_is_one_word_of_the_command() -> None:
    assert change("chmod 700", "/srv/my state", FOLDER, "") == "chmod 700 '/srv/my state'"
