"""Certificate revocation lists: RFC 5280 section 5, from an authority's register.

nginx's `ssl_crl` and `openssl verify -crl_check_all` need the list of every authority of the chain, the root's too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from .authority import Authority
from .errors import PkiError
from .profiles import DIGESTS
from .register import REASONS, Issued, Revoked


def crl_number(previous: x509.CertificateRevocationList | None, now: datetime) -> int:
    """Return the next number: the time in seconds, and always above the previous one.

    Time, so that numbers still rise after the register came back from an older backup (RFC 5280 section 5.2.3).
    """
    if previous is None:
        return int(now.timestamp())
    last = previous.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return max(int(now.timestamp()), last + 1)


def make_crl(
    authority: Authority,
    issued: Mapping[str, Issued],
    revoked: Iterable[Revoked],
    *,
    now: datetime,
    valid_for: timedelta,
    previous: x509.CertificateRevocationList | None = None,
) -> x509.CertificateRevocationList:
    """Return a list signed by the authority, due for renewal at `now + valid_for`. Raises PkiError.

    A revoked certificate stays on the lists until two periods after its own end (section 3.3: at least one list later).
    """
    end = authority.certificate.not_valid_after_utc
    if now >= end:
        raise PkiError(f"authority {authority.name}: ended {end:%Y-%m-%d}; its lists end with it, make a new one")
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now.replace(microsecond=0))
        .next_update((now + valid_for).replace(microsecond=0))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.CRLNumber(crl_number(previous, now)), critical=False)
    )
    for entry in revoked:
        known = issued.get(entry.serial)
        if known and known.not_after + 2 * valid_for < now:
            continue
        one = (
            x509.RevokedCertificateBuilder()
            .serial_number(int(entry.serial, 16))
            .revocation_date(entry.at.replace(microsecond=0))
        )
        if entry.reason != x509.ReasonFlags.unspecified.value:  # section 5.3.1: absent instead of "unspecified"
            one = one.add_extension(x509.CRLReason(REASONS[entry.reason]), critical=False)
        builder = builder.add_revoked_certificate(one.build())
    return builder.sign(authority.key, DIGESTS[authority.curve])


def is_revoked(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    """Return whether the list names the certificate. The caller has verified the list."""
    return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def genuine(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Return whether the list is this authority's own."""
    try:
        return crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, InvalidSignature):
        return False


def bundle(lists: Iterable[x509.CertificateRevocationList]) -> bytes:
    """Return lists one after the other in PEM, as `ssl_crl` and `-CRLfile` read them."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in lists)
