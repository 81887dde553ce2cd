"""Why something was not believed: one exception for the whole verifier, and the reason it carries into a verdict."""

from __future__ import annotations

from dataclasses import dataclass

MAX_WORDS = 1000


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
        # Some faults quote what they found, and that comes from whoever is judged: one printable line, not too long.
        line = "".join(character if character.isprintable() else "?" for character in words[:MAX_WORDS])
        super().__init__(line)
        self.reason = Reason(code, line, found=found, expected=expected)
