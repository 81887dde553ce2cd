"""The appliance's own intermediate: works before anything else does, and without a network."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ...pki.authority import serial_text
from ...pki.errors import KeyUnavailableError, PkiError, StoreError
from ...pki.issue import parse_request
from ...pki.keeper import Keeper, pem
from ...pki.names import AgentName
from ...pki.profiles import AGENT
from ...pki.store import PUBLIC, make_folder, read_file, write_file
from ..errors import BackendRefusedError, BackendUnavailableError
from .base import Issued, Pending


class Local:
    """The authority `agents` of a Keeper. Its answers are kept by request, so that a lost answer is found again."""

    name = "local"
    revokes = True
    polls = True

    def __init__(self, keeper: Keeper, *, fallback: bool = False, crl_valid_for: timedelta = timedelta(days=7)) -> None:
        self._keeper, self._fallback, self._crl_valid_for = keeper, fallback, crl_valid_for
        self._answers = keeper.folder / "answers"

    def enrol(self, csr: bytes, name: AgentName, lifetime: timedelta, *, reuse_key: bool) -> Issued | Pending:
        """Issue. Raises BackendRefusedError, BackendUnavailableError when the authority's key is not at hand."""
        try:
            made = self._keeper.issue(
                "agents", csr, name, AGENT, lifetime=lifetime, fallback=self._fallback, reuse_key=reuse_key
            )
            make_folder(self._answers)
            write_file(self._answer(csr), pem([made]), PUBLIC)
        except (KeyUnavailableError, StoreError) as error:
            raise BackendUnavailableError(f"local authority: {error}") from error
        except PkiError as error:
            raise BackendRefusedError(f"local authority: {error}") from error
        return self._issued(made)

    def recover(self, csr: bytes) -> Issued | None:
        """Return the certificate that was issued for this very request, None where none was."""
        try:
            path = self._answer(csr)
            if not path.exists():
                return None
            made = x509.load_pem_x509_certificate(read_file(path, private=False))
            revoked = serial_text(made.serial_number) in self._keeper.register("agents").revoked()
        except (PkiError, ValueError) as error:
            raise BackendUnavailableError(f"local authority: {error}") from error
        return None if revoked else self._issued(made)

    def collect(self, request: str, csr: bytes) -> Issued | Pending:  # noqa: ARG002
        """Refuse: nothing is ever pending here."""
        raise BackendRefusedError(f"local authority: there is no pending request {request[:40]!r}")

    def revoke(self, serial: str, reason: str, reference: str = "") -> None:  # noqa: ARG002
        """Revoke and publish a new list."""
        try:
            self._keeper.revoke("agents", serial, reason, self._crl_valid_for)
        except (KeyUnavailableError, StoreError) as error:
            raise BackendUnavailableError(f"local authority: {error}") from error
        except PkiError as error:
            raise BackendRefusedError(f"local authority: {error}") from error

    def _answer(self, csr: bytes) -> Path:
        # By the request and not by its key: a key that is used again has several certificates.
        return self._answers / f"{hashlib.sha256(parse_request(csr).public_bytes(Encoding.DER)).hexdigest()}.pem"

    def _issued(self, certificate: x509.Certificate) -> Issued:
        return Issued(certificate, self._keeper.certificates("agents")[:-1])
