"""A certificate authority in memory: its certificate, the way up to the root, and its key. It signs, and nothing else.

RFC 5280. Time and serial randomness come from the caller; keys from OpenSSL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import PkiError, RequestRefusedError
from .names import subject
from .profiles import CURVES, DIGESTS, AuthorityProfile

Random = Callable[[int], bytes]
#: Clocks differ a little; a certificate that is "not yet valid" for a minute looks like an outage.
BACKDATE = timedelta(minutes=5)
SERIAL_BYTES = 20  # RFC 5280 section 4.1.2.2: at most 20 octets, positive


def random_serial(random: Random) -> int:
    """Return a serial number of 159 random bits, never zero."""
    return int.from_bytes(random(SERIAL_BYTES), "big") >> 1 or 1


def serial_text(serial: int) -> str:
    """Return a serial as OpenSSL writes it: upper-case hexadecimal, whole bytes."""
    text = f"{serial:X}"
    return text.zfill(len(text) + len(text) % 2)


def key_fingerprint(public: object) -> str:
    """Return the SHA-256 of a public key's SubjectPublicKeyInfo, in hexadecimal."""
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise RequestRefusedError("the key is not an elliptic curve key; ECDSA on P-384 is needed")
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def curve_name(public: object) -> str:
    """Return `P-384` or `P-256`. Raises RequestRefusedError for anything else."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        for name, curve in CURVES.items():
            if public.curve.name == curve.name:
                return name
        raise RequestRefusedError(f"the key's curve is {public.curve.name}; there are {', '.join(CURVES)}")
    raise RequestRefusedError(f"the key is a {type(public).__name__.lstrip('_')}; ECDSA on P-384 is needed")


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return the key usage of an authority (sign certificates and CRLs) or of an end certificate (sign)."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True)
class Authority:
    """`issuers` leads from this authority's issuer up to the root; the root's own is empty."""

    name: str
    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if key_fingerprint(self.key.public_key()) != key_fingerprint(self.certificate.public_key()):
            raise PkiError(f"authority {self.name}: key and certificate are not a pair; restore both from one backup")
        chain = (self.certificate, *self.issuers)
        above = (*self.issuers, chain[-1])
        for below, issuer in zip(chain, above, strict=True):
            try:
                below.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature) as error:
                raise PkiError(
                    f"authority {self.name}: {below.subject.rfc4514_string()} is not signed by "
                    f"{issuer.subject.rfc4514_string()}; restore the certificates from one backup"
                ) from error

    @property
    def root(self) -> x509.Certificate:
        """Return the trust anchor."""
        return (self.certificate, *self.issuers)[-1]

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Return what a peer needs besides its root: this authority and those above, without the root."""
        return tuple(one for one in (self.certificate, *self.issuers) if one != self.root)

    @property
    def curve(self) -> str:
        """Return the name of the key's curve."""
        return curve_name(self.key.public_key())

    def builder(self, now: datetime, lifetime: timedelta, random: Random) -> x509.CertificateBuilder:
        """Return a builder with issuer, serial, validity and authority key identifier.

        The end is never after our own end. Raises PkiError when this authority is not valid at `now`.
        """
        start, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        if not start <= now < end:
            raise PkiError(
                f"authority {self.name}: valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, the clock says "
                f"{now:%Y-%m-%d %H:%M}; set the clock, or make a new intermediate from the root"
            )
        identifier = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            .issuer_name(self.certificate.subject)
            .serial_number(random_serial(random))
            .not_valid_before(max(start, now - BACKDATE).replace(microsecond=0))
            .not_valid_after(min(end, now + lifetime).replace(microsecond=0))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        )

    def sign(self, builder: x509.CertificateBuilder, digest_of: str | None = None) -> x509.Certificate:
        """Sign with the digest of our curve, or with that of another one."""
        return builder.sign(self.key, DIGESTS[digest_of or self.curve])


def new_key(curve: str) -> ec.EllipticCurvePrivateKey:
    """Return a new key from OpenSSL's generator."""
    return ec.generate_private_key(CURVES[curve])


def _as_authority(
    builder: x509.CertificateBuilder, profile: AuthorityProfile, organization: str, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    builder = (
        builder.subject_name(subject(profile.title, organization))
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=True, path_length=profile.path_length), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if profile.usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.usages), critical=False)
    if profile.names:
        builder = builder.add_extension(profile.names.extension(), critical=True)
    if profile.hosts:
        hosts = [x509.DNSName(host) for host in profile.hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder


def make_root(
    profile: AuthorityProfile,
    organization: str,
    *,
    now: datetime,
    random: Random,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Authority:
    """Return a new self-signed authority. Raises NameRefusedError."""
    key = key or new_key(profile.curve)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(subject(profile.title, organization))
        .serial_number(random_serial(random))
        .not_valid_before((now - BACKDATE).replace(microsecond=0))
        .not_valid_after((now + profile.lifetime).replace(microsecond=0))
    )
    certificate = _as_authority(builder, profile, organization, key.public_key()).sign(key, DIGESTS[profile.curve])
    return Authority(profile.name, certificate, (), key)


def certify(
    issuer: Authority,
    profile: AuthorityProfile,
    organization: str,
    public: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    random: Random,
) -> x509.Certificate:
    """Return the certificate of an authority whose key is elsewhere: this is what an offline root signs.

    Raises PkiError when the issuer may not have this authority below it, RequestRefusedError for another curve.
    """
    limit = issuer.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    if limit is not None and profile.path_length >= limit:
        raise PkiError(f"authority {profile.name}: {issuer.name} allows {limit} authorities below it, this needs more")
    if curve_name(public) != profile.curve:
        raise RequestRefusedError(f"authority {profile.name}: key on {curve_name(public)}, {profile.curve} is needed")
    builder = _as_authority(issuer.builder(now, profile.lifetime, random), profile, organization, public)
    return issuer.sign(builder, profile.signed_with)


def make_intermediate(
    issuer: Authority,
    profile: AuthorityProfile,
    organization: str,
    *,
    now: datetime,
    random: Random,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Authority:
    """Return a new authority below `issuer`. Raises as `certify` does."""
    key = key or new_key(profile.curve)
    certificate = certify(issuer, profile, organization, key.public_key(), now=now, random=random)
    return Authority(profile.name, certificate, (issuer.certificate, *issuer.issuers), key)
