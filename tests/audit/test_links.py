# What root reads in a state directory that is somebody else's: he may have put links there, to what is not his.
from __future__ import annotations

import os
from pathlib import Path

from tests.audit.logs import brokerctl, files
from tests.daemon.harness import Brokerd

OTHER = 60_978  # a user
LINE = '{"seq":1,"time":1,"event":"test-only-precious","prev":"0"}\n'


async def test_root_shows_nobody_the_file_that_a_link_leads_to(brokerd: Brokerd, as_root: None, folder: Path) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    assert await brokerd.stop() == 0
    roots = folder / "roots"
    roots.write_text(LINE)
    (log,) = files(brokerd)
    log.unlink()
    log.symlink_to(roots)
    assert "test-only-precious" in brokerctl(brokerd, "tail")[1], "his own link is his to follow"
    roots.chmod(0o600)
    for path in (brokerd.state, *brokerd.state.rglob("*")):
        os.chown(path, OTHER, OTHER, follow_symlinks=False)
    for action in ("tail", "verify"):
        status, said = brokerctl(brokerd, action)
        assert (status, "is not yours to read" in said) == (2, True), action
        assert "test-only-precious" not in said
