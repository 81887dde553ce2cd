"""No certificate without a verdict of the attestation that is good and fresh.

Fail closed: an unknown status, an unknown mark, another host, a verdict from the future are all refusals with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from .errors import GateRefusedError

#: Two clocks of one appliance may differ by this much.
CLOCK_TOLERANCE = timedelta(seconds=30)


class Verdict(Protocol):
    """What this package needs to know of an attestation verdict."""

    @property
    def status(self) -> str:
        """Return the outcome, such as `trusted`."""

    @property
    def issued_at(self) -> datetime:
        """Return when the quote was judged (aware)."""

    @property
    def host(self) -> str:
        """Return the name of the host that was judged."""

    @property
    def ak_name(self) -> str:
        """Return the TPM name of the attestation key, hexadecimal."""

    @property
    def degraded(self) -> Sequence[str]:
        """Return marks of what was tolerated, such as `software-tpm`; empty for a clean verdict."""


@dataclass(frozen=True)
class Gate:
    """What is demanded of a verdict.

    :param max_age: how old it may be.
    :param ak_name: the attestation key known for this host; None accepts any (before the key is pinned).
    :param statuses: outcomes that open the gate.
    :param tolerated: degraded marks that do not close it.
    """

    host: str
    max_age: timedelta
    ak_name: str | None = None
    statuses: frozenset[str] = frozenset({"trusted"})
    tolerated: frozenset[str] = frozenset()

    def check(self, verdict: Verdict | None, now: datetime) -> None:
        """Return when the gate is open. Raises GateRefusedError."""
        reason = next(self._reasons(verdict, now), None)
        if reason:
            raise GateRefusedError(f"no certificate for {self.host}: {reason}")

    def _reasons(self, verdict: Verdict | None, now: datetime) -> Iterator[str]:
        if verdict is None:
            yield "there is no attestation verdict; attest the host first"
            return
        if verdict.host != self.host:
            yield f"the verdict is about {verdict.host!r}"
        if self.ak_name is not None and verdict.ak_name != self.ak_name:
            yield "the verdict was made with another attestation key; if the TPM was replaced, enrol its key first"
        if verdict.status not in self.statuses:
            yield f"attestation says {verdict.status!r}, needed is {' or '.join(sorted(self.statuses))}"
        marks = sorted(set(verdict.degraded) - self.tolerated)
        if marks:
            yield f"attestation is degraded ({', '.join(marks)}), and that is not tolerated here"
        seconds, allowed = (now - verdict.issued_at).total_seconds(), self.max_age.total_seconds()
        if seconds < -CLOCK_TOLERANCE.total_seconds():
            yield f"the verdict is {-seconds:.0f} s in the future; compare the clocks"
        if seconds > allowed:
            yield f"the verdict is {seconds:.0f} s old, at most {allowed:.0f} s are allowed; attest again"
