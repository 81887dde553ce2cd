"""Enrolment over Secure Transport, RFC 7030: simpleenroll and simplereenroll.

Bodies are base64 of DER: PKCS #10 on the way there, "certs-only" PKCS #7 on the way back (sections 4.2.1, 4.2.3). A 202
means: send the same request again later; a run that comes to it does.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7

from ...pki.issue import parse_request
from ...pki.names import AgentName
from ..errors import BackendRefusedError
from .base import Issued, Pending, foreign, order_chain
from .http import Answer, ClientPair, Https

MAX_CERTIFICATES = 16


class Est:
    """An EST server below `<base>/.well-known/est[/label]`.

    :param credentials: user name and password for HTTP Basic inside TLS (section 3.2.3), None for none.
    :param pair: the agent's present pair for TLS (section 3.3.2), None while there is none or its key is in hardware;
        with it the request goes to simplereenroll.
    """

    name = "est"
    revokes = False
    polls = False

    def __init__(
        self,
        https: Https,
        label: str = "",
        credentials: Callable[[], tuple[str, str]] | None = None,
        pair: Callable[[], ClientPair | None] = lambda: None,
    ) -> None:
        self._https, self._credentials, self._pair = https, credentials, pair
        self._path = "/.well-known/est" + (f"/{label}" if label else "")

    def enrol(self, csr: bytes, name: AgentName, lifetime: timedelta, *, reuse_key: bool) -> Issued | Pending:  # noqa: ARG002
        """Send the request once. The lifetime is the server's to choose; a longer one than allowed is not installed."""
        return self._send(csr)

    def _send(self, csr: bytes) -> Issued | Pending:
        request, pair = parse_request(csr), self._pair()
        fields = {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "base64"}
        secret = ""
        if self._credentials is not None:
            user, secret = self._credentials()
            basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
            fields["Authorization"] = f"Basic {basic}"
        answer = self._https.send(
            "POST",
            f"{self._path}/{'simplereenroll' if pair else 'simpleenroll'}",
            body=base64.encodebytes(request.public_bytes(Encoding.DER)),
            fields=fields,
            pair=pair,
        )
        if answer.status == 202:
            return Pending(hashlib.sha256(csr).hexdigest()[:16])
        if answer.status != 200:
            self._https.refuse(answer, "the request was not granted", secret)
        return self._issued(request, self._certificates(answer))

    def recover(self, csr: bytes) -> Issued | None:  # noqa: ARG002
        """Return None: EST has no way to ask for an earlier answer."""
        return None

    def collect(self, request: str, csr: bytes) -> Issued | Pending:  # noqa: ARG002
        """Send the same request again, as section 4.2.3 wants it after a 202."""
        return self._send(csr)

    def revoke(self, serial: str, reason: str, reference: str = "") -> None:  # noqa: ARG002
        """Refuse: EST has no revocation."""
        raise BackendRefusedError(f"{self._https.who}: EST has no revocation; revoke {serial} at the authority")

    def authorities(self) -> tuple[x509.Certificate, ...]:
        """Return the server's CA certificates (section 4.1); they are shown, never trusted by themselves."""
        answer = self._https.send("GET", f"{self._path}/cacerts")
        if answer.status != 200:
            self._https.refuse(answer, "no CA certificates")
        return self._certificates(answer)

    def _certificates(self, answer: Answer) -> tuple[x509.Certificate, ...]:
        kind = answer.fields.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
            raise BackendRefusedError(f"{self._https.who}: the answer is {kind[:60]!r}, not application/pkcs7-mime")
        with foreign(self._https.who):
            der = base64.b64decode(b"".join(answer.body.split()), validate=True)
            found = tuple(pkcs7.load_der_pkcs7_certificates(der))
        if not 1 <= len(found) <= MAX_CERTIFICATES:
            raise BackendRefusedError(f"{self._https.who}: {len(found)} certificates in the answer")
        return found

    def _issued(self, request: x509.CertificateSigningRequest, found: tuple[x509.Certificate, ...]) -> Issued:
        """Find the certificate of our key; EST promises no order."""
        with foreign(self._https.who):
            own = public_bytes(request)
            for one in found:
                if public_bytes(one) == own:
                    return Issued(one, order_chain(one, (*found, *self.authorities())))
        raise BackendRefusedError(f"{self._https.who}: no certificate in the answer is for our key")


def public_bytes(one: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """Return the public key of either, for a comparison; an authority's own may be of any kind."""
    return one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
