"""The two PCR signing keys, by what they may sign."""

from __future__ import annotations

from enum import Enum

from .prediction import ALL_PATHS, INITRD_PATHS


class Role(Enum):
    """`INITRD` opens what only the initrd may open; `ALL` what units of the running system use as well.

    The first must never sign a later phase: a root file system that somebody has put there runs in those phases.
    """

    INITRD = "initrd"
    ALL = "all"

    @property
    def paths(self) -> tuple[str, ...]:
        """The phase paths that this key signs."""
        return INITRD_PATHS if self is Role.INITRD else ALL_PATHS
