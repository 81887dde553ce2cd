"""Grant a certificate request under a profile. The request proves the key; the names come from who authorised it.

PKCS #10 is RFC 2986. Extensions that a request asks for are not copied (RFC 5280 leaves that to the issuer): only a
subjectAltName is looked at, and it has to say nothing other than what is granted, so that a request which reached the
wrong place is refused instead of silently answered with another identity.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from .authority import Authority, Random, curve_name, key_fingerprint, key_usage
from .errors import RequestRefusedError
from .profiles import LeafProfile

MAX_REQUEST_BYTES = 16 * 1024
WEAK_DIGESTS = frozenset({"md5", "sha1"})


class Name(Protocol):
    """What a certificate says about its holder (names.AgentName, names.ServiceName)."""

    @property
    def subject(self) -> x509.Name:
        """Return the subject."""

    @property
    def names(self) -> tuple[x509.GeneralName, ...]:
        """Return the subject alternative names."""


def parse_request(data: bytes) -> x509.CertificateSigningRequest:
    """Return a request in PEM or DER whose signature proves possession of its key. Raises RequestRefusedError."""
    if len(data) > MAX_REQUEST_BYTES:
        raise RequestRefusedError(f"certificate request of {len(data)} bytes, at most {MAX_REQUEST_BYTES}")
    try:
        pem = b"-----BEGIN" in data
        request = x509.load_pem_x509_csr(data) if pem else x509.load_der_x509_csr(data)
        valid = request.is_signature_valid
        digest = request.signature_hash_algorithm
        list(request.extensions)  # parsed only when asked for
    except Exception as error:
        # Untrusted bytes: the parser's own exceptions are several, and differ between its versions.
        raise RequestRefusedError(f"certificate request cannot be read: {type(error).__name__}") from error
    if not valid:
        raise RequestRefusedError("certificate request: its signature does not prove possession of the key")
    if digest is None or digest.name in WEAK_DIGESTS:
        raise RequestRefusedError("certificate request: signed with a weak digest; SHA-256 or SHA-384 is needed")
    return request


def check_key(
    public: object, profile: LeafProfile, *, fallback: bool, used: Collection[str]
) -> ec.EllipticCurvePublicKey:
    """Return the request's key if the profile takes it. Raises RequestRefusedError.

    :param fallback: the smaller curves of the profile are allowed, because the operator said so.
    :param used: fingerprints of keys that had a certificate before.
    """
    curve = curve_name(public)
    if curve not in profile.curves and not (fallback and curve in profile.fallback):
        hint = "; allow it explicitly for a TPM without P-384" if curve in profile.fallback else ""
        raise RequestRefusedError(
            f"{profile.name}: the key is on {curve}, {' or '.join(profile.curves)} is needed{hint}"
        )
    if key_fingerprint(public) in used:
        raise RequestRefusedError(f"{profile.name}: this key had a certificate before; make a new key for each request")
    assert isinstance(public, ec.EllipticCurvePublicKey)  # noqa: S101  (curve_name has refused everything else)
    return public


def _check_names(request: x509.CertificateSigningRequest, name: Name) -> None:
    try:
        asked = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    foreign = [str(getattr(one, "value", one)) for one in asked if one not in name.names]
    if foreign:
        raise RequestRefusedError(
            f"certificate request asks for {foreign[0][:200]!r}, which is not what is granted here"
        )


def issue(
    authority: Authority,
    csr: bytes,
    name: Name,
    profile: LeafProfile,
    *,
    now: datetime,
    random: Random,
    lifetime: timedelta | None = None,
    fallback: bool = False,
    used_keys: Collection[str] = (),
) -> x509.Certificate:
    """Return the certificate. Raises RequestRefusedError, PkiError when the authority is not valid now.

    :param lifetime: at most the profile's, which is also the default; never beyond the authority's own end.
    :param used_keys: fingerprints of keys that may not be used again (Register.keys).
    """
    lifetime = lifetime or profile.lifetime
    if not timedelta(0) < lifetime <= profile.lifetime:
        raise RequestRefusedError(f"{profile.name}: a lifetime of {lifetime} is asked for, at most {profile.lifetime}")
    request = parse_request(csr)
    own = key_fingerprint(authority.key.public_key())
    public = check_key(request.public_key(), profile, fallback=fallback, used={own, *used_keys})
    _check_names(request, name)
    builder = (
        authority.builder(now, lifetime, random)
        .subject_name(name.subject)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(profile.usages), critical=profile.critical_usage)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if name.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(name.names), critical=False)
    return authority.sign(builder)
