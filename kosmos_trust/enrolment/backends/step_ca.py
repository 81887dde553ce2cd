"""step-ca: a one-time token of a JWK provisioner, then /1.0/sign with our CSR.

The provisioner's template has to set the organisation and clientAuth alone: what it issues is judged as ever.
Token claims: step-ca's JWK provisioner; RFC 7515 (JWS), RFC 7519 (JWT), RFC 7518 section 3.4 (ES256).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from ...pki.names import AgentName
from ..errors import BackendRefusedError
from .base import Issued, Pending, foreign, order_chain
from .http import Https

TOKEN_LIFE = timedelta(minutes=5)
#: RFC 5280 section 5.3.1.
REASONS = {"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5}


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class Provisioner:
    """A JWK provisioner: its name, key id, and P-256 key. Tokens are good for five minutes and one use."""

    name: str
    key_id: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    clock: Callable[[], datetime]
    random: Callable[[int], bytes]

    def token(self, audience: str, subject: str, names: tuple[str, ...] = ()) -> str:
        """Return a signed one-time token."""
        now = self.clock()
        claims = {
            "iss": self.name,
            "aud": audience,
            "sub": subject,
            "sans": list(names) or [subject],
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + TOKEN_LIFE).timestamp()),
            "jti": self.random(16).hex(),
        }
        head = {"alg": "ES256", "typ": "JWT", "kid": self.key_id}
        signing = ".".join(_encode(json.dumps(part).encode()) for part in (head, claims))
        r, s = utils.decode_dss_signature(self.key.sign(signing.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signing}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class StepCa:
    """One step-ca."""

    name = "step_ca"
    revokes = True
    polls = True

    def __init__(self, https: Https, provisioner: Provisioner) -> None:
        self._https, self._provisioner = https, provisioner

    def enrol(self, csr: bytes, name: AgentName, lifetime: timedelta, *, reuse_key: bool) -> Issued | Pending:  # noqa: ARG002
        """Send the request once. Raises BackendUnavailableError, BackendRefusedError."""
        token = self._provisioner.token(f"{self._https.base}/1.0/sign", name.common_name, (name.uri,))
        content = {"csr": csr.decode(), "ott": token, "notAfter": f"{int(lifetime.total_seconds())}s"}
        answer = self._https.send_json("POST", "/1.0/sign", content)
        if answer.status not in (200, 201):
            self._https.refuse(answer, "the request was not granted", token)
        found = answer.json(self._https.who)
        with foreign(self._https.who):
            leaf = x509.load_pem_x509_certificate(str(found["crt"]).encode())
            given = [str(one) for one in found.get("certChain") or [found["ca"]]]
            chain = tuple(x509.load_pem_x509_certificate(one.encode()) for one in given)
            return Issued(leaf, order_chain(leaf, chain))

    def recover(self, csr: bytes) -> Issued | None:  # noqa: ARG002
        """Return None: requests cannot be looked up."""
        return None

    def collect(self, request: str, csr: bytes) -> Issued | Pending:  # noqa: ARG002
        """Refuse: nothing is ever pending here."""
        raise BackendRefusedError(f"{self._https.who}: there is no pending request {request[:40]!r}")

    def revoke(self, serial: str, reason: str, reference: str = "") -> None:  # noqa: ARG002
        """Revoke by serial (step-ca writes it decimal); one that is revoked already is a success."""
        number = str(int(serial, 16))
        token = self._provisioner.token(f"{self._https.base}/1.0/revoke", number)
        content = {"serial": number, "ott": token, "reasonCode": REASONS[reason], "reason": reason, "passive": True}
        answer = self._https.send_json("POST", "/1.0/revoke", content)
        if answer.status != 200 and b"already revoked" not in answer.body.lower():
            self._https.refuse(answer, f"revoking {serial}", token)
