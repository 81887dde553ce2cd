"""A waiver names one check, a reason and a last day; anything else is refused by name."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.checks import waivers

GOOD = {"id": "host.a.b", "reason": "ordered", "expires": "2027-01-31"}


def test_the_last_day_still_counts() -> None:
    waiver = waivers.parse([GOOD], {"host.a.b"})["host.a.b"]
    assert waiver.as_data(dt.date(2027, 1, 31)) == {"reason": "ordered", "expires": "2027-01-31", "expired": False}
    assert waiver.expired(dt.date(2027, 2, 1))


@pytest.mark.parametrize("value", [dt.date(2027, 1, 31), dt.datetime(2027, 1, 31, 5, tzinfo=dt.UTC), "2027-01-31"])
def test_yaml_dates_and_text_are_the_same(value: Any) -> None:
    assert waivers.parse([GOOD | {"expires": value}], {"host.a.b"})["host.a.b"].expires == dt.date(2027, 1, 31)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        (["host.a.b"], "waiver 1: must be a mapping"),
        ([{"id": "host.a.b", "reason": "x"}], "host.a.b: needs exactly .* expires"),
        ([GOOD | {"until": 1}], "look at until"),
        ([GOOD | {"reason": " "}], "the reason is empty"),
        ([GOOD | {"id": "host.x.y"}], "host.x.y: there is no check"),
        ([GOOD, GOOD], "given twice"),
        ([GOOD | {"expires": "soon"}], "write a date such as"),
    ],
)
def test_each_fault_is_named(entries: list[Any], what: str) -> None:
    with pytest.raises(waivers.WaiverError, match=what):
        waivers.parse(entries, {"host.a.b"})
