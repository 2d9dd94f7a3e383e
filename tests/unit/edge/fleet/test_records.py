# The records of a fleet's grants (edge/fleet/records.py).
from __future__ import annotations

import pytest

from brokerd.core.grant.record import Record
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.ports import StoredRecord
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet.records import _newer

NOW = Moment(2_000.0, 1_000.0, "this", True)
BADLY = NOW.after(-130.0)  # as far as a host can tell that has just started


def stored(token: str, issued: Moment) -> StoredRecord:
    access = AccessToken(Secret(token), "Bearer", issued, 300.0, 0.5)
    return StoredRecord("app", "f", Record("app", access_token=access), None)


def issued(row: StoredRecord | None) -> Moment:
    assert row is not None
    assert row.record is not None
    assert row.record.access_token is not None
    return row.record.access_token.issued


def test_a_host_that_starts_again_knows_how_old_a_token_is_as_well_as_before() -> None:
    assert issued(_newer(stored("a", BADLY), stored("a", NOW.after(-10.0)), NOW)) == NOW.after(-10.0)


@pytest.mark.parametrize(
    "ours",
    [
        stored("b", NOW.after(-10.0)),
        stored("a", Moment(1_990.0, 990.0, "the boot before", True)),
        stored("a", NOW.after(-200.0)),
    ],
    ids=["another token", "another boot", "it knew less"],
)
def test_otherwise_what_etcd_has_counts(ours: StoredRecord) -> None:
    assert issued(_newer(stored("a", BADLY), ours, NOW)) == BADLY
