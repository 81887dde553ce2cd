"""What can go wrong in the PKI. Every text says what, where, why and the cure; none ever carries a secret."""

from __future__ import annotations


class PkiError(Exception):
    """The PKI refuses or fails. The text is for a person."""


class NameRefusedError(PkiError):
    """A name, identifier or subject breaks a rule."""


class RequestRefusedError(PkiError):
    """A certificate request is not granted."""


class KeyUnavailableError(PkiError):
    """A private key cannot be unwrapped: another machine, another TPM, a wrong passphrase."""


class StoreError(PkiError):
    """A file is missing, foreign, damaged, or cannot be written."""


class RecoveryNeededError(PkiError):
    """Something that must never be made anew is gone while data still needs it. The text is the recovery text."""
