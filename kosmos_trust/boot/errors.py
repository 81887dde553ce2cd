"""What may go wrong here."""

from __future__ import annotations

from kosmos_trust.errors import KnownError


class BootError(KnownError):
    """A known failure of this package."""


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
