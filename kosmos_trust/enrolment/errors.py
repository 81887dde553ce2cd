"""Why an agent has no new certificate. Every text says what, where, why and the cure; none ever carries a secret."""

from __future__ import annotations


class EnrolmentError(Exception):
    """No new certificate was installed; what was installed before still is."""


class GateRefusedError(EnrolmentError):
    """Attestation does not allow it. The text is the reason."""


class ClockError(EnrolmentError):
    """The clock contradicts the certificate that is installed."""


class BackendUnavailableError(EnrolmentError):
    """The certificate authority did not answer, or could not serve now. Asking again later may work.

    `answered` is False when it may have issued a certificate whose answer was lost on the way.
    """

    def __init__(self, message: str, *, answered: bool = True) -> None:
        super().__init__(message)
        self.answered = answered


class BackendRefusedError(EnrolmentError):
    """The certificate authority said no, or answered nonsense. Asking again will not help."""


class KeyStoreError(EnrolmentError):
    """A key cannot be made or used where it has to be kept."""


class InstallError(EnrolmentError):
    """The new pair is not usable, or the service refused it; the old one is back in place."""
