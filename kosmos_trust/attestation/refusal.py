"""Why something was not believed: one exception for the whole verifier, and the reason it carries into a verdict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One finding. `code` is stable, for machines; `words` is for people; `found` and `expected` are hex or names.

    `pcr` and `bank` tell where, `event` what was measured there; each is None where it does not apply.
    """

    code: str
    words: str
    pcr: int | None = None
    bank: str | None = None
    event: str | None = None
    found: str | None = None
    expected: str | None = None


class Refused(ValueError):  # noqa: N818 - it is the verifier's answer, not a fault of the program
    """Evidence that is malformed, forged, stale or about something else."""

    def __init__(self, code: str, words: str, *, found: str | None = None, expected: str | None = None) -> None:
        super().__init__(words)
        self.reason = Reason(code, words, found=found, expected=expected)
