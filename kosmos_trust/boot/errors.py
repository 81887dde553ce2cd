"""What may go wrong here, told to a person: what, where, why, and the cure. Never a secret."""

from __future__ import annotations


class BootError(Exception):
    """A known failure of this package; `str()` is the whole story in one line."""

    def __init__(self, what: str, *, where: str = "", why: str = "", cure: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.cure = what, where, why, cure

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        reason = f": {self.why}" if self.why else ""
        return f"{place}{self.what}{reason}" + (f"; {self.cure}" if self.cure else "")


class ImageError(BootError):
    """A file is not the PE image that it should be."""


class SignatureError(BootError):
    """A key or a set of PCR policy signatures is not usable."""


class TokenError(BootError):
    """The metadata of a LUKS2 volume is not what cryptsetup writes."""


class EspError(BootError):
    """The EFI system partition cannot take or give what is asked."""


class ConfigError(BootError):
    """The settings of this host are wrong."""


class CommandError(BootError):
    """A program is missing, failed, or did not end in time."""


class RotationError(BootError):
    """A step of a key rotation cannot be done now; the journal says where to go on."""
