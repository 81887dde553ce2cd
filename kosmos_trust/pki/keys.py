"""How private keys lie on disk: plain on the sealed volume, encrypted PKCS #8, or sealed by this machine's TPM.

A protector turns a key into bytes for a 0600 file, and back. Plain and encrypted are ordinary PEM that OpenSSL reads.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from .errors import KeyUnavailableError

#: OpenSSL derives the key of encrypted PKCS #8 with few rounds: only a machine-made passphrase (>= 160 bits) will do.
MIN_PASSPHRASE_CHARACTERS = 27


class Protector(Protocol):
    """What keeps private keys at rest. `kind` is written beside the key, so that a mix-up is told by name."""

    kind: str

    def wrap(self, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return the bytes to store. Raises KeyUnavailableError."""

    def unwrap(self, name: str, data: bytes) -> ec.EllipticCurvePrivateKey:
        """Return the key. Raises KeyUnavailableError."""


def plain_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return unencrypted PKCS #8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())


def load_pem(data: bytes, passphrase: bytes | None, where: str) -> ec.EllipticCurvePrivateKey:
    """Return the elliptic curve key of a PEM. Raises KeyUnavailableError, never with the content."""
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError):
        said = "wrong passphrase, or damaged" if passphrase else "encrypted, or damaged"
        raise KeyUnavailableError(
            f"{where}: the private key cannot be read: {said}; restore it from a backup"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyUnavailableError(f"{where}: not an elliptic curve key")
    return key


class PlainFile:
    """Unencrypted PKCS #8, for a volume that is itself sealed to the TPM."""

    kind = "plain"

    def wrap(self, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return PKCS #8 PEM."""
        del name
        return plain_pem(key)

    def unwrap(self, name: str, data: bytes) -> ec.EllipticCurvePrivateKey:
        """Return the key. Raises KeyUnavailableError."""
        return load_pem(data, None, name)


class Encrypted:
    """Encrypted PKCS #8 under a passphrase that a machine made."""

    kind = "encrypted"

    def __init__(self, passphrase: bytes) -> None:
        if len(passphrase) < MIN_PASSPHRASE_CHARACTERS:
            raise KeyUnavailableError(
                f"the passphrase of a key file has {len(passphrase)} characters, at least {MIN_PASSPHRASE_CHARACTERS}: "
                "take `openssl rand -base64 32`, not a word that a person chose"
            )
        self._passphrase = passphrase

    def wrap(self, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return encrypted PKCS #8 PEM."""
        del name
        encryption = serialization.BestAvailableEncryption(self._passphrase)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def unwrap(self, name: str, data: bytes) -> ec.EllipticCurvePrivateKey:
        """Return the key. Raises KeyUnavailableError."""
        return load_pem(data, self._passphrase, name)


class Sealer(Protocol):
    """What seals bytes to a TPM (kosmos_trust.tpm_seal)."""

    def seal(self, name: str, secret: bytes) -> bytes:
        """Return the sealed form. Raises KeyUnavailableError."""

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """Return the secret. Raises KeyUnavailableError."""


class Sealed:
    """PKCS #8 sealed by the TPM: useless on another machine. The backup is the way there."""

    kind = "tpm"

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def wrap(self, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return the sealed key. Raises KeyUnavailableError."""
        return self._sealer.seal(name, plain_pem(key))

    def unwrap(self, name: str, data: bytes) -> ec.EllipticCurvePrivateKey:
        """Return the key. Raises KeyUnavailableError."""
        return load_pem(self._sealer.unseal(name, data), None, name)
