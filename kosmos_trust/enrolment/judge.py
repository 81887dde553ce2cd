"""Whether an agent's pair is what is wanted, from its content alone.

The same judgement decides about the pair in use (renew?) and about a new one (install?).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..pki.authority import key_fingerprint
from ..pki.crl import genuine, is_revoked
from ..pki.errors import PkiError
from ..pki.issue import parse_request
from ..pki.names import AgentName
from ..pki.profiles import MAX_AGENT_LIFETIME
from . import schedule
from .errors import KeyStoreError
from .generations import Pair
from .keystore import KeyStore, check_curve
from .openssl import chain_fault

#: An issuer may backdate a little, and its clock may differ.
LIFETIME_TOLERANCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Wanted:
    """What an agent's certificate has to be.

    :param anchor: the pinned root.
    :param host: with the agent's name the seed of the jitter.
    :param lists: revocation lists; those of other issuers, or with a wrong signature, are passed over.
    """

    name: AgentName
    anchor: x509.Certificate
    host: str
    lifetime: timedelta = MAX_AGENT_LIFETIME
    lists: tuple[x509.CertificateRevocationList, ...] = ()

    @property
    def seed(self) -> str:
        """Return the seed of the renewal's jitter."""
        return f"{self.host}/{self.name.common_name}"


def faults(pair: Pair, wanted: Wanted, keys: KeyStore, now: datetime) -> list[str]:
    """Return what is wrong with a pair, empty when nothing is. Being due is not wrong."""
    unreadable = _reading_fault(pair.certificate)
    if unreadable:
        return [unreadable]
    found = [_name_fault(pair.certificate, wanted.name), _usage_fault(pair.certificate)]
    chain = chain_fault(pair.certificate, pair.chain, wanted.anchor, now)
    found.append(f"its chain does not verify: {chain}" if chain else None)
    life = pair.certificate.not_valid_after_utc - pair.certificate.not_valid_before_utc
    if life > min(wanted.lifetime, MAX_AGENT_LIFETIME) + LIFETIME_TOLERANCE:
        found.append(f"it lives {life.days} days, longer than allowed")
    found += [_key_fault(pair, wanted, keys), _revocation_fault(pair, wanted)]
    return [fault for fault in found if fault]


def due(pair: Pair, wanted: Wanted, now: datetime) -> bool:
    """Return whether the pair is to be renewed for its age."""
    return now >= schedule.renew_at(pair.certificate, wanted.seed)


def _reading_fault(certificate: x509.Certificate) -> str | None:
    """Touch every part that is parsed only when it is asked for; what a damaged one raises is of many kinds."""
    try:
        certificate.subject.rfc4514_string()
        certificate.issuer.rfc4514_string()
        key_fingerprint(certificate.public_key())
        list(certificate.extensions)
        certificate.not_valid_after_utc - certificate.not_valid_before_utc
    except PkiError as error:
        return str(error)
    except Exception as error:
        return f"it cannot be read: {type(error).__name__}"
    return None


def _name_fault(certificate: x509.Certificate, name: AgentName) -> str | None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return f"it has no name {name.uri}"
    if list(names) != list(name.names):
        return f"it names {', '.join(uris) or 'no URI'} and {len(names) - len(uris)} others, wanted is only {name.uri}"
    subject = {part.rfc4514_string() for part in certificate.subject.rdns}
    if subject != {part.rfc4514_string() for part in name.subject.rdns}:
        return f"its subject is {certificate.subject.rfc4514_string()}, wanted is {name.subject.rfc4514_string()}"
    return None


def _usage_fault(certificate: x509.Certificate) -> str | None:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return "it has no extended key usage"
    return None if list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH] else "it is not for client authentication alone"


def _key_fault(pair: Pair, wanted: Wanted, keys: KeyStore) -> str | None:
    try:
        request = parse_request(keys.request(pair.folder, wanted.name))
        resident = key_fingerprint(request.public_key())
        fits = resident == key_fingerprint(pair.certificate.public_key())
    except (KeyStoreError, PkiError) as error:
        return f"its key cannot be used: {error}"
    if not fits:
        return "key and certificate are not a pair"
    curve = getattr(request.public_key(), "curve", None)
    expected = {"P-384": "secp384r1", "P-256": "secp256r1"}[check_curve(keys.curve)]
    return None if curve is not None and curve.name == expected else f"its key is not on {keys.curve}"


def _revocation_fault(pair: Pair, wanted: Wanted) -> str | None:
    for certificate, issuer in zip((pair.certificate, *pair.chain), (*pair.chain, wanted.anchor), strict=True):
        for one in wanted.lists:
            if genuine(one, issuer) and is_revoked(one, certificate):
                return "it was revoked" if certificate == pair.certificate else "an authority above it was revoked"
    return None


def describe(certificate: x509.Certificate | None, serial: str = "") -> str:
    """Return serial, dates and names of a certificate, one a line, for a diff. Never the key."""
    if certificate is None:
        return ""
    unreadable = _reading_fault(certificate)
    if unreadable:
        return f"serial: {serial}\n{unreadable}\n"
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        shown = ", ".join(str(getattr(name, "value", name)) for name in names)
    except (x509.ExtensionNotFound, ValueError):
        shown = "none"
    return (
        f"serial: {serial}\nsubject: {certificate.subject.rfc4514_string()}\nnames: {shown}\n"
        f"issuer: {certificate.issuer.rfc4514_string()}\n"
        f"not before: {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}\n"
        f"not after: {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}\n"
    )
