"""Where an agent's key lives: exactly `tpm`, `pkcs11` or `encrypted_file`.

A key store makes a key into a folder (or a reference to it), signs requests with it, and lets go of it. A request is
also the proof that the key in the folder works: its signature is checked by whoever parses it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..pki.authority import new_key
from ..pki.errors import PkiError
from ..pki.keys import Encrypted
from ..pki.names import AgentName
from ..pki.profiles import DIGESTS, P256, P384
from ..pki.store import read_file, write_file
from .errors import KeyStoreError

STORES = ("tpm", "pkcs11", "encrypted_file")
KEY = "key.pem"


class KeyStore(Protocol):
    """One kind of key storage. `curve` is P-384, or P-256 where the operator said so."""

    kind: str
    curve: str

    def create(self, folder: Path, name: AgentName) -> None:
        """Make a new key. Raises KeyStoreError, StoreError."""

    def request(self, folder: Path, name: AgentName) -> bytes:
        """Return a request in PEM, signed by the key. Raises KeyStoreError, StoreError."""

    def reuse(self, old: Path, new: Path) -> None:
        """Let a new folder use the old folder's key. Raises KeyStoreError where that is not wanted."""

    def destroy(self, folder: Path) -> None:
        """Let go of the key; the folder itself is removed by the caller. Raises KeyStoreError."""


def check_curve(curve: str) -> str:
    """Return the curve if agents may have it."""
    if curve not in (P384, P256):
        raise KeyStoreError(f"curve {curve!r}: {P384}, or {P256} where the operator allows it")
    return curve


class EncryptedFile:
    """Encrypted PKCS #8. The passphrase comes from the caller, each time it is needed, and is kept nowhere."""

    kind = "encrypted_file"

    def __init__(self, passphrase: Callable[[], bytes], curve: str = P384) -> None:
        self._passphrase, self.curve = passphrase, check_curve(curve)

    def create(self, folder: Path, name: AgentName) -> None:
        """Write a new key. Raises KeyStoreError, StoreError."""
        write_file(folder / KEY, self._protector(name).wrap(name.common_name, new_key(self.curve)))

    def request(self, folder: Path, name: AgentName) -> bytes:
        """Return a request in PEM. Raises KeyStoreError, StoreError."""
        data = read_file(folder / KEY)
        try:
            key = self._protector(name).unwrap(str(folder / KEY), data)
        except PkiError as error:
            raise KeyStoreError(str(error)) from None
        builder = x509.CertificateSigningRequestBuilder().subject_name(name.subject)
        builder = builder.add_extension(x509.SubjectAlternativeName(name.names), critical=False)
        return builder.sign(key, DIGESTS[self.curve]).public_bytes(Encoding.PEM)

    def reuse(self, old: Path, new: Path) -> None:  # noqa: ARG002
        """Refuse: a key in a file could have been copied, so it is made anew each time."""
        raise KeyStoreError(f"{old}: a key in a file is not used again (rekey: false is for TPM and PKCS #11)")

    def destroy(self, folder: Path) -> None:
        """Remove the file."""
        (folder / KEY).unlink(missing_ok=True)

    def _protector(self, name: AgentName) -> Encrypted:
        try:
            return Encrypted(self._passphrase())
        except PkiError as error:
            raise KeyStoreError(f"{name.common_name}: {error}") from None
