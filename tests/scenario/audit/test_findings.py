# What the audit log finds wrong with itself is an event of the log and counted, so that an alert can be raised.
from __future__ import annotations

import pytest

from tests.scenario.audit.logs import files, lines, written
from tests.scenario.audit.test_daemon import started
from tests.scenario.daemon.harness import Brokerd, Serving


async def counted(brokerd: Brokerd) -> dict[str, float]:
    text = (await brokerd.call("metrics"))["text"].splitlines()
    rows = [row.partition("kind=")[2] for row in text if row.startswith("brokerd_audit_findings_total{")]
    return {row.split('"')[1]: float(row.split()[-1]) for row in rows}


@pytest.mark.parametrize(
    ("spoil", "kind", "event", "reason"),
    [
        (lambda text: b"".join(text.splitlines(keepends=True)[:2]), "changed", "audit_changed", "cut or changed"),
        (lambda text: text + b'{"seq": 9', "incomplete", "audit_incomplete", "removed an incomplete last line"),
        (lambda text: text, None, "", ""),
    ],
)
async def test_a_finding_is_said_and_counted(
    brokerd: Brokerd, serving: Serving, spoil: object, kind: str | None, event: str, reason: str
) -> None:
    await started(brokerd, serving)
    await brokerd.get("app")
    await written(brokerd, event="get")
    assert await brokerd.stop() == 0
    path = files(brokerd)[-1]
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    await brokerd.start()
    found = await counted(brokerd)
    assert found.keys() == {"changed", "incomplete", "lost"}
    assert found["lost"] == 0
    if kind is None:
        assert "event=audit_" not in brokerd.log
        assert not any(found.values())
    else:
        assert found[kind] == 1
        said = [line for line in brokerd.log.splitlines() if f"event={event}" in line]
        assert any(reason in line for line in said)
        await written(brokerd, event=event)
        assert lines(brokerd, event=event)
