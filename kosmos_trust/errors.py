"""What every known failure of the library tells a person: what, where, why, and the cure. Never a secret."""

from __future__ import annotations


class KnownError(Exception):
    """A failure that the code foresaw; `str()` is the whole story in one line."""

    def __init__(self, what: str, *, where: str = "", why: str = "", cure: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.cure = what, where, why, cure

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        reason = f": {self.why}" if self.why else ""
        return f"{place}{self.what}{reason}" + (f"; {self.cure}" if self.cure else "")
