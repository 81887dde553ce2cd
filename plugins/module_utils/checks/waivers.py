"""Waivers: one check id, one reason, one expiry date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class WaiverError(ValueError):
    """A waiver is not acceptable. The text names it, says why and how to repair it."""


@dataclass(frozen=True)
class Waiver:
    """One accepted waiver; `expires` is the last day on which it holds."""

    id: str
    reason: str
    expires: dt.date

    def expired(self, today: dt.date) -> bool:
        """Return whether the waiver no longer holds on `today`."""
        return today > self.expires

    def as_data(self, today: dt.date) -> dict[str, Any]:
        """Return the JSON form that travels with the check."""
        return {"reason": self.reason, "expires": self.expires.isoformat(), "expired": self.expired(today)}


def parse(entries: Iterable[Any], known_ids: Collection[str]) -> dict[str, Waiver]:
    """Return the waivers by check id.

    `entries` are mappings {id, reason, expires: YYYY-MM-DD}; `known_ids` are the ids of every check that exists.
    Raises WaiverError at the first entry that is incomplete, double, or names a check that does not exist.
    """
    waivers: dict[str, Waiver] = {}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise WaiverError(f"waiver {number}: must be a mapping of id, reason and expires, not {entry!r}")
        name = str(entry.get("id") or f"number {number}")
        wrong = sorted({"id", "reason", "expires"} ^ set(entry))
        if wrong:
            raise WaiverError(f"waiver {name}: needs exactly id, reason and expires; look at {', '.join(wrong)}")
        reason = str(entry["reason"] or "").strip()
        if not reason:
            raise WaiverError(f"waiver {name}: the reason is empty; write why the finding is accepted")
        if name not in known_ids:
            raise WaiverError(f"waiver {name}: there is no check of that id; see `kosmos-install checks list`")
        if name in waivers:
            raise WaiverError(f"waiver {name}: given twice; keep one")
        waivers[name] = Waiver(name, reason, _date(name, entry["expires"]))
    return waivers


def _date(name: str, value: Any) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(str(value))
    except ValueError as error:
        raise WaiverError(f"waiver {name}: expires is {value!r}; write a date such as 2027-01-31") from error
