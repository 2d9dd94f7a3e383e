# Descriptions of callers that mean nothing, or less than they seem to: the error says what to write instead.
from __future__ import annotations

import pytest

from brokerd.config.rules import read_rule
from brokerd.core.validation import ConfigError


@pytest.mark.parametrize(
    ("caller", "words"),
    [
        ({"exe": "/opt/portal"}, "add user or uid or unit"),
        ({"sha256": "a1" * 32, "group": "video"}, "add user or uid or unit"),
        ({"user_unit": "job.service"}, "add user or uid"),
        ({"uid": 61_500}, 'name the service instead: { unit = "NAME.service" }'),
        ({"uid": 65_534}, "it matches nobody"),
        ({"gid": 65_534}, "it matches nobody"),
        ({"unit": "portal"}, "a unit with its kind"),
        ({"slice": "system"}, "a slice such as"),
        ({"uid": 5, "exe": "portal"}, "an absolute path"),
        ({"uid": 5, "sha256": "A1" * 32}, "64 lowercase hexadecimal digits"),
        ({"container": "a1b2"}, "the whole id of a container"),
    ],
)
def test_a_caller_that_means_nothing_is_refused(caller: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match="caller") as error:
        read_rule({}, "allow[0]", {"grants": ["*"], "caller": caller})
    assert words in str(error.value)


def test_a_dynamic_uid_goes_with_its_unit() -> None:
    caller = {"uid": 61_500, "unit": "portal.service"}
    assert read_rule({}, "allow[0]", {"grants": ["*"], "caller": caller}).callers[0].unit == "portal.service"
