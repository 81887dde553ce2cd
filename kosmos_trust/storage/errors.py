"""What may go wrong here."""

from __future__ import annotations

from kosmos_trust.errors import KnownError


class StorageError(KnownError):
    """A known failure of this package."""


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
