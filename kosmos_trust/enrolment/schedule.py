"""When a certificate is renewed: at two thirds of its life, spread over the fleet, the same moment on every look.

Jitter comes from names, not from chance: a timer that asks every hour must get one answer, and a fleet that was
enrolled in one night must not renew in one minute.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from cryptography import x509

from .errors import ClockError

#: Of the whole life, either way.
JITTER = 0.05
#: With less than this part of its life left, a certificate that cannot be renewed is a failure and no longer a warning.
GRACE = 0.10
#: What an issuer may backdate, and clocks differ.
CLOCK_TOLERANCE = timedelta(minutes=5)


def renew_at(certificate: x509.Certificate, seed: str) -> datetime:
    """Return the moment from which the certificate is due. `seed` names host and agent."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    offset = (number / (2**64 - 1) * 2 - 1) * JITTER
    return start + (end - start) * (2 / 3 + offset)


def check_clock(certificate: x509.Certificate, now: datetime) -> None:
    """Raise ClockError when `now` is before the certificate's start: renewing would not make that better."""
    start = certificate.not_valid_before_utc
    if now < start - CLOCK_TOLERANCE:
        raise ClockError(
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, but the installed certificate begins {start:%Y-%m-%d %H:%M}; "
            "nothing was changed; set the clock (chronyc makestep)"
        )


def in_grace(certificate: x509.Certificate, now: datetime) -> bool:
    """Return whether more than a tenth of the certificate's life is left."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - now > (end - start) * GRACE
