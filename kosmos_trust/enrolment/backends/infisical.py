"""Infisical's PKI over its HTTP interface: machine identity (universal auth), then a request with our CSR.

Paths and fields: Infisical API reference, "PKI Certificates" (v1). The answer may say that a person has to approve.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from cryptography import x509

from ...pki.names import AgentName
from ..errors import BackendRefusedError, BackendUnavailableError
from .base import Issued, Pending, foreign, order_chain
from .http import Https

MAX_CSR_CHARACTERS = 4096  # the server's own limit
WAITING = frozenset({"pending_approval", "pending", "pending_validation"})
CERTIFICATES = "/api/v1/cert-manager/certificates"


class Infisical:
    """A certificate profile of one Infisical. `credentials` gives client id and client secret when they are needed."""

    name = "infisical"
    revokes = True
    polls = True

    def __init__(self, https: Https, profile: str, credentials: Callable[[], tuple[str, str]]) -> None:
        self._https, self._profile, self._credentials = https, profile, credentials

    def enrol(self, csr: bytes, name: AgentName, lifetime: timedelta, *, reuse_key: bool) -> Issued | Pending:  # noqa: ARG002
        """Send the request once. Raises BackendUnavailableError, BackendRefusedError."""
        text = csr.decode()
        if len(text) > MAX_CSR_CHARACTERS:
            raise BackendRefusedError(f"{self._https.who}: the request has {len(text)} characters, at most 4096")
        token = self._log_in()
        days = max(1, int(lifetime / timedelta(days=1)))
        content = {"profileId": self._profile, "csr": text, "attributes": {"ttl": f"{days}d"}}
        answer = self._https.send_json("POST", CERTIFICATES, content, token)
        if answer.status != 200:
            self._https.refuse(answer, "the request was not granted", token)
        return self._read(answer.json(self._https.who), token)

    def recover(self, csr: bytes) -> Issued | None:  # noqa: ARG002
        """Return None: requests cannot be looked up by their content."""
        return None

    def collect(self, request: str, csr: bytes) -> Issued | Pending:  # noqa: ARG002
        """Return how a request that waits for approval stands."""
        token = self._log_in()
        answer = self._https.send_json(
            "GET", f"{CERTIFICATES}/certificate-requests/{quote(request, safe='')}", None, token
        )
        if answer.status != 200:
            self._https.refuse(answer, "the pending request", token)
        content = answer.json(self._https.who)
        content.setdefault("certificateRequestId", request)
        return self._read(content, token)

    def revoke(self, serial: str, reason: str, reference: str = "") -> None:
        """Revoke by the certificate's id here; one that is revoked already is a success."""
        if not reference:
            raise BackendRefusedError(f"{self._https.who}: the id of certificate {serial} is not known any more")
        token = self._log_in()
        content = {"revocationReason": "".join(f"_{one}" if one.isupper() else one for one in reason).upper()}
        answer = self._https.send_json("POST", f"{CERTIFICATES}/{quote(reference, safe='')}/revoke", content, token)
        if answer.status != 200 and b"already revoked" not in answer.body.lower():
            self._https.refuse(answer, f"revoking {serial}", token)

    def _log_in(self) -> str:
        """Return an access token; it is used once and kept nowhere."""
        identity, secret = self._credentials()
        content = {"clientId": identity, "clientSecret": secret}
        try:
            answer = self._https.send_json("POST", "/api/v1/auth/universal-auth/login", content)
        except BackendUnavailableError as error:
            # Whatever became of the login: no certificate was asked for yet.
            raise BackendUnavailableError(str(error)) from error
        if answer.status != 200:
            try:
                self._https.refuse(answer, "the machine identity was not let in", secret, identity)
            except BackendUnavailableError as error:
                raise BackendUnavailableError(str(error)) from error
        token = answer.json(self._https.who).get("accessToken")
        if not isinstance(token, str) or not token:
            raise BackendRefusedError(f"{self._https.who}: the login gave no access token")
        return token

    def _read(self, content: dict[str, Any], token: str) -> Issued | Pending:
        status, request = str(content.get("status", "")), str(content.get("certificateRequestId", ""))
        if status in WAITING and request:
            return Pending(request)
        found = content.get("certificate")
        if status not in ("", "issued") or not found:
            said = str(content.get("errorMessage") or content.get("message") or "").replace(token, "***")[:200]
            raise BackendRefusedError(f"{self._https.who}: the request is {status[:40]!r}{f': {said}' if said else ''}")
        identifier = str(content.get("certificateId") or "")
        if isinstance(found, str):  # a collected request names the certificate; its chain is asked for
            found = self._bundle(identifier, token)
        with foreign(self._https.who):
            leaf = x509.load_pem_x509_certificate(str(found["certificate"]).encode())
            others = "\n".join(str(found.get(key) or "") for key in ("certificateChain", "issuingCaCertificate"))
            chain = tuple(x509.load_pem_x509_certificates(others.encode())) if others.strip() else ()
            return Issued(leaf, order_chain(leaf, chain), str(found.get("certificateId") or identifier))

    def _bundle(self, identifier: str, token: str) -> dict[str, Any]:
        answer = self._https.send_json("GET", f"{CERTIFICATES}/{quote(identifier, safe='')}/certificate", None, token)
        if answer.status != 200:
            self._https.refuse(answer, "the issued certificate", token)
        return answer.json(self._https.who)
