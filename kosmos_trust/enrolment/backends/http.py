"""HTTPS to a certificate authority: a pinned root, time-outs, a limit for answers, and no second try by itself.

urllib3, and not requests on top of it: it looks at no proxy or netrc of the environment, follows no redirect and
repeats no request unless told, and is typed. See docs/adr/0005-certificates.md.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.util import parse_url

from ..errors import BackendRefusedError, BackendUnavailableError

MAX_ANSWER_BYTES = 1024 * 1024
MAX_SAID = 200
#: The server or something before it could not serve; whether it did its work first is unknown.
UNCLEAR = frozenset({500, 502, 504})
LATER = frozenset({408, 425, 429, 503})


@dataclass(frozen=True)
class ClientPair:
    """A certificate with its chain and its key, for authentication by TLS. The passphrase is asked for when needed."""

    chain: Path
    key: Path
    passphrase: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Answer:
    """Status, header fields in small letters, body."""

    status: int
    fields: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self, who: str) -> dict[str, Any]:
        """Return the body as a JSON object. Raises BackendRefusedError."""
        try:
            content = json.loads(self.body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise BackendRefusedError(f"{who}: the answer ({self.status}) is not a JSON object")
        return content


class Https:
    """One server. `anchor` is the only root that is believed; the system's are not."""

    def __init__(self, base: str, anchor: x509.Certificate, who: str, timeout_seconds: float = 20.0) -> None:
        parsed = parse_url(base)
        if parsed.scheme != "https" or not parsed.host or parsed.query or parsed.auth:
            raise BackendRefusedError(f"{who}: its address has to be https://host[:port][/path], without credentials")
        self.base, self.who = base.rstrip("/"), who
        self._anchor = anchor.public_bytes(Encoding.PEM).decode()
        self._timeout = urllib3.Timeout(connect=timeout_seconds, read=timeout_seconds)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        fields: Mapping[str, str] | None = None,
        pair: ClientPair | None = None,
    ) -> Answer:
        """Send one request, once. Raises BackendUnavailableError; not `answered`: it may have been acted on."""
        with urllib3.PoolManager(ssl_context=self._context(pair), timeout=self._timeout, retries=False) as pool:
            try:
                response = pool.request(
                    method,
                    self.base + path,
                    body=body,
                    headers=dict(fields or {}),
                    redirect=False,
                    preload_content=False,
                )
                with response:
                    data = response.read(MAX_ANSWER_BYTES + 1, decode_content=False)
            except (NewConnectionError, ConnectTimeoutError) as error:
                raise BackendUnavailableError(f"{self.who}: no connection: {_reason(error)}") from error
            except (HTTPError, OSError) as error:
                if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise BackendUnavailableError(f"{self.who}: no connection: {_reason(error)}") from error
                raise BackendUnavailableError(
                    f"{self.who}: the answer did not arrive: {_reason(error)}", answered=method == "GET"
                ) from error
        if len(data) > MAX_ANSWER_BYTES:
            raise BackendRefusedError(f"{self.who}: an answer of more than {MAX_ANSWER_BYTES} bytes")
        return Answer(response.status, {key.lower(): value for key, value in response.headers.items()}, data)

    def send_json(self, method: str, path: str, content: object | None, token: str = "") -> Answer:
        """Send JSON, with a bearer token if there is one."""
        fields = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        if content is None:
            return self.send(method, path, fields=fields)
        body = json.dumps(content).encode()
        return self.send(method, path, body=body, fields={**fields, "Content-Type": "application/json"})

    def refuse(self, answer: Answer, what: str, *secrets: str) -> NoReturn:
        """Raise the error that an unexpected answer means, with the server's words without our secrets."""
        said = _said(answer, secrets)
        text = f"{self.who}: {what}: HTTP {answer.status}{f': {said}' if said else ''}"
        if answer.status in UNCLEAR or answer.status in LATER:
            raise BackendUnavailableError(text, answered=answer.status in LATER)
        raise BackendRefusedError(text)

    def _context(self, pair: ClientPair | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=self._anchor)
        if pair is not None:
            try:
                context.load_cert_chain(pair.chain, pair.key, pair.passphrase or b"")
            except (OSError, ssl.SSLError) as error:
                raise BackendUnavailableError(f"{self.who}: {pair.chain} and {pair.key}: not a usable pair") from error
        return context


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:MAX_SAID]}"


def _said(answer: Answer, secrets: tuple[str, ...]) -> str:
    """Return the message of an error answer: one printable line, short, without what we sent in confidence."""
    text = answer.body[:4096].decode(errors="replace")
    if "json" in answer.fields.get("content-type", ""):
        try:
            content = json.loads(answer.body)
            text = str(content.get("message", "")) if isinstance(content, dict) else ""
        except ValueError:
            text = ""
    elif "text/plain" not in answer.fields.get("content-type", ""):
        text = ""
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    return "".join(one if one.isprintable() else " " for one in text).strip()[:MAX_SAID]
