"""The EK certificate: is this endorsement key one that a TPM manufacturer vouches for?

Source: TCG EK Credential Profile 2.5, section 3 (certificate) and 2.2.1 (where it is stored).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ObjectIdentifier

from .chain import Anchors, extension, reaches_root, unknown_criticals
from .refusal import Refused
from .structures import Public

EK_CERTIFICATE_USAGE = ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate
TPM_MODEL = ObjectIdentifier("2.23.133.2.2")
SOFTWARE_MODELS = ("swtpm", "simulator")
MAX_CERTIFICATE_BYTES = 16 * 1024


class Endorsement(StrEnum):
    """Who vouches for an EK: a manufacturer's root, a software TPM's, one that we do not know, or nobody."""

    HARDWARE = "hardware"
    SOFTWARE = "software"
    UNKNOWN = "unknown"
    ABSENT = "absent"


def judge_endorsement(certificate: bytes, ek: Public, anchors: Anchors, at: datetime) -> Endorsement:
    """Tell who vouches for the EK at the time `at`. `certificate` is DER as stored in the TPM, b"" for none.

    Raises Refused when there is a certificate that is malformed, for another key, not for an EK, or not valid at `at`.
    Whether SOFTWARE, UNKNOWN and ABSENT are good enough is the policy's business.
    """
    if not certificate:
        return Endorsement.ABSENT
    leaf = _parse(certificate)
    try:
        _require_ek_certificate(leaf, ek)
        _require_valid(leaf, at)
        for kind, roots in ((Endorsement.HARDWARE, anchors.hardware), (Endorsement.SOFTWARE, anchors.software)):
            if reaches_root(leaf, roots, anchors.intermediates, at):
                # A manufacturer's root in front of a program is a root in the wrong folder.
                return Endorsement.SOFTWARE if _is_software(leaf) else kind
    except Refused:
        raise
    except Exception as error:
        # cryptography parses a field when it is asked for, and has no common exception for what it finds there
        # (version 43: even KeyError). Whatever it is, this certificate proves nothing.
        raise Refused("ek.certificate", f"EK certificate: malformed: {type(error).__name__}: {error}") from error
    return Endorsement.UNKNOWN


def _parse(data: bytes) -> x509.Certificate:
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise Refused("ek.certificate", f"EK certificate: {len(data)} bytes, more than {MAX_CERTIFICATE_BYTES}")
    try:
        return x509.load_der_x509_certificate(_without_padding(data))
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise Refused("ek.certificate", f"EK certificate: is not a DER certificate: {error}") from error


def _without_padding(data: bytes) -> bytes:
    """Cut what follows the outer SEQUENCE when it is only filling: some manufacturers' NV indices are larger."""
    if data[:2] != b"\x30\x82" or len(data) < 4:
        return data
    end = 4 + int.from_bytes(data[2:4], "big")
    return data[:end] if set(data[end:]) <= {0x00} or set(data[end:]) <= {0xFF} else data


def _require_ek_certificate(leaf: x509.Certificate, ek: Public) -> None:
    if isinstance(ek.key, rsa.RSAPublicKey):
        shown = ek.key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    else:
        shown = ek.key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if _key_bits(leaf.tbs_certificate_bytes) != shown:
        raise Refused("ek.key", "EK certificate: is for another key than the TPM's endorsement key")
    if unknown := unknown_criticals(leaf):
        raise Refused("ek.certificate", f"EK certificate: critical extension {unknown[0]} is unknown")
    usage = extension(leaf, x509.KeyUsage)
    if usage and not (usage.key_encipherment if isinstance(ek.key, rsa.RSAPublicKey) else usage.key_agreement):
        raise Refused("ek.certificate", "EK certificate: its key usage does not fit an endorsement key")
    extended = extension(leaf, x509.ExtendedKeyUsage)
    if extended is not None and EK_CERTIFICATE_USAGE not in extended:
        raise Refused(
            "ek.certificate", f"EK certificate: extended key usage lacks {EK_CERTIFICATE_USAGE.dotted_string}"
        )
    constraints = extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise Refused("ek.certificate", "EK certificate: is a CA certificate")


def _key_bits(tbs: bytes) -> bytes:
    """Return the content of the subjectPublicKey BIT STRING of a TBSCertificate.

    Read from the DER, since `public_key()` refuses the algorithm id-RSAES-OAEP that Infineon's certificates name.
    """
    fields = _elements(_elements(tbs)[0][1])
    before = 6 if fields[0][0] == 0xA0 else 5  # [0] version, serial number, signature, issuer, validity, subject
    kind, bits = _elements(fields[before][1])[1]
    if kind != 0x03 or bits[:1] != b"\0":
        raise ValueError("the public key is not a BIT STRING of whole bytes")
    return bits[1:]


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Cut DER into its (tag, content) pairs. Only called on bytes that a strict parser has accepted before."""
    found, position = [], 0
    while position < len(data):
        tag, size = data[position], data[position + 1]
        position += 2
        if size & 0x80:
            width = size & 0x7F
            size = int.from_bytes(data[position : position + width], "big")
            position += width
        found.append((tag, data[position : position + size]))
        position += size
    return found


def _require_valid(leaf: x509.Certificate, at: datetime) -> None:
    if not leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc:
        raise Refused(
            "ek.validity",
            "EK certificate: is not valid at this time",
            found=at.isoformat(),
            expected=f"{leaf.not_valid_before_utc.isoformat()} to {leaf.not_valid_after_utc.isoformat()}",
        )


def _is_software(leaf: x509.Certificate) -> bool:
    """Tell whether the TPM's model in the SAN (profile, 3.2.9) says that it is a program."""
    names = extension(leaf, x509.SubjectAlternativeName)
    models = (
        attribute.value
        for name in (names.get_values_for_type(x509.DirectoryName) if names else ())
        for attribute in name.get_attributes_for_oid(TPM_MODEL)
    )
    return any(isinstance(model, str) and model.lower().startswith(SOFTWARE_MODELS) for model in models)
