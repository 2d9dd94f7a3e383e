# What the path of a cgroup says, and what it does not: names that anybody may give say nothing.
from __future__ import annotations

import pytest

from brokerd.core.access.cgroup_path import Place, read_place

ID, OTHER = "a1" * 32, "b2" * 32


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", Place()),
        ("/init.scope", Place("init.scope")),
        ("/system.slice/portal.service", Place("portal.service", "system.slice")),
        ("/system.slice/portal.service/worker", Place("portal.service", "system.slice")),
        ("/a.slice/a-b.slice/portal.service", Place("portal.service", "a-b.slice")),
        ("/system.slice/_cgroup.service", Place("cgroup.service", "system.slice")),
        ("/system.slice", Place(None, "system.slice")),
        ("/system.slice/portal.service (deleted)", Place()),
        ("/../system.slice/portal.service", Place()),
        ("/user.slice/user-7.slice/session-3.scope", Place("session-3.scope", "user-7.slice")),
        (
            "/user.slice/user-7.slice/user@7.service/app.slice/job.service",
            Place("user@7.service", "user-7.slice", None, 7, "job.service"),
        ),
        ("/user.slice/user@7.service/init.scope", Place("user@7.service", "user.slice", None, 7, "init.scope")),
        (f"/user.slice/user@7.service/user.slice/libpod-{ID}.scope", None),
        (f"/system.slice/docker-{ID}.scope", Place(f"docker-{ID}.scope", "system.slice", ID)),
        (f"/machine.slice/libpod-{ID}.scope/container", Place(f"libpod-{ID}.scope", "machine.slice", ID)),
        (f"/kubepods.slice/cri-containerd-{ID}.scope", Place(f"cri-containerd-{ID}.scope", "kubepods.slice", ID)),
        (f"/docker/{ID}/docker/{OTHER}", Place(container=ID)),
        (f"/kubepods/burstable/pod7/{ID}", Place(container=ID)),
        (f"/system.slice/evil.service/docker-{ID}.scope", Place("evil.service", "system.slice")),
        (f"/docker/evil.service/{ID}", Place()),
    ],
)
def test_a_path_says_who_made_it(path: str, place: Place | None) -> None:
    found = read_place(path)
    if place is None:
        assert (found.container, found.unit) == (None, "user@7.service")
    else:
        assert found == place
