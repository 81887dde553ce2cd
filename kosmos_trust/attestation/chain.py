"""Certificates of TPM manufacturers: read from a folder, and searched for a path to a root.

Chain building is our own on purpose. `cryptography.x509.verification` judges Web PKI: Debian 13's version 43 cannot be
told of other extensions, and every EK certificate breaks its rules (empty subject with a critical directoryName SAN,
extended key usage 2.23.133.8.1, RSA keys for encipherment only). Checked on each issuer: its signature over the child,
the names, validity, basic constraints with path length, keyCertSign, a hash no weaker than SHA-256, and that no
critical extension is unknown (RFC 5280, section 6). Revocation lists are not consulted: an appliance has no way to
them, and manufacturers hardly publish any; a root that is no longer trusted is taken out of the folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from .refusal import Refused

FOLDERS = ("hardware", "software", "intermediates")
SUFFIXES = (".pem", ".crt", ".cer", ".der")
MAX_FILES, MAX_DEPTH, MAX_STEPS = 2000, 6, 64
PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"
#: Critical extensions that are checked below, or that cannot matter for an EK.
JUDGED = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
)

E = TypeVar("E", bound=x509.ExtensionType)


@dataclass(frozen=True)
class Anchors:
    """Trusted roots of hardware and of software TPMs, and intermediate certificates that are only helpers."""

    hardware: tuple[x509.Certificate, ...] = ()
    software: tuple[x509.Certificate, ...] = ()
    intermediates: tuple[x509.Certificate, ...] = ()


def load_anchors(folder: Path) -> Anchors:
    """Read PEM and DER certificates below `folder`: hardware/, software/ and intermediates/, as far as they exist.

    Raises Refused for a file that is no certificate, and for a folder that is none of these: a root in the wrong
    place must not go unnoticed.
    """
    if not folder.is_dir():
        raise Refused("anchors", f"{folder}: there is no such folder of TPM manufacturers' certificates")
    unknown = sorted(path.name for path in folder.iterdir() if path.name not in FOLDERS)
    if unknown:
        raise Refused("anchors", f"{folder / unknown[0]}: is not one of {', '.join(FOLDERS)}; move it into one")
    return Anchors(*(tuple(_certificates(folder / name)) for name in FOLDERS))


def _certificates(folder: Path) -> Iterable[x509.Certificate]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    if len(paths) > MAX_FILES:
        raise Refused("anchors", f"{folder}: {len(paths)} files, more than {MAX_FILES}")
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise Refused("anchors", f"{path}: does not end with one of {', '.join(SUFFIXES)}")
        data = path.read_bytes()
        try:
            if PEM_BEGIN in data:
                yield from x509.load_pem_x509_certificates(data)
            else:
                yield x509.load_der_x509_certificate(data)
        except ValueError as error:
            raise Refused("anchors", f"{path}: is not a certificate in PEM or DER: {error}") from error


def extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    """Return the value of an extension, None where there is none."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def unknown_criticals(certificate: x509.Certificate) -> list[str]:
    """Return the dotted names of critical extensions that nobody here judges."""
    return [entry.oid.dotted_string for entry in certificate.extensions if entry.critical and entry.oid not in JUDGED]


def reaches_root(
    leaf: x509.Certificate,
    roots: tuple[x509.Certificate, ...],
    intermediates: tuple[x509.Certificate, ...],
    at: datetime,
) -> bool:
    """Search a path from the leaf to a root, depth first, in at most MAX_STEPS signature checks."""
    open_paths, steps = [(leaf, 0)], 0
    while open_paths:
        child, depth = open_paths.pop()
        for issuer, is_root in [*((root, True) for root in roots), *((helper, False) for helper in intermediates)]:
            if issuer.subject != child.issuer or not _may_issue(issuer, depth, at):
                continue
            steps += 1
            if steps > MAX_STEPS:
                return False
            if not _issued(issuer, child):
                continue
            if is_root:
                return True
            if depth + 1 < MAX_DEPTH:
                open_paths.append((issuer, depth + 1))
    return False


def _may_issue(issuer: x509.Certificate, below: int, at: datetime) -> bool:
    """Tell whether a certificate may stand above a chain with `below` intermediates under it."""
    constraints = extension(issuer, x509.BasicConstraints)
    usage = extension(issuer, x509.KeyUsage)
    return (
        not unknown_criticals(issuer)
        and constraints is not None
        and constraints.ca
        and (constraints.path_length is None or constraints.path_length >= below)
        and (usage is None or usage.key_cert_sign)
        and issuer.not_valid_before_utc <= at <= issuer.not_valid_after_utc
        and isinstance(issuer.public_key(), rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    )


def _issued(issuer: x509.Certificate, child: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    algorithm = child.signature_hash_algorithm
    return algorithm is not None and algorithm.digest_size >= 32
