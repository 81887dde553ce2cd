"""What may go wrong here, told to a person: what, where, why, and the cure. Never a secret."""

from __future__ import annotations


class StorageError(Exception):
    """A known failure of this package; `str()` is the whole story in one line."""

    def __init__(self, what: str, *, where: str = "", why: str = "", cure: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.cure = what, where, why, cure

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        reason = f": {self.why}" if self.why else ""
        return f"{place}{self.what}{reason}" + (f"; {self.cure}" if self.cure else "")


class CommandError(StorageError):
    """A program is missing, failed, or did not end in time."""


class ForeignDiskError(StorageError):
    """The device holds something that is not ours."""


class JournalError(StorageError):
    """The record of what was done cannot be read or written."""


class WaitingError(StorageError):
    """Nothing is broken: the next step needs a person, or a reboot."""


class KeyFileError(StorageError):
    """A root key, a record of an agent's key or a sealed file is not usable."""
