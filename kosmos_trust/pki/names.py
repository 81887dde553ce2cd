"""Who may be called what: SPIFFE-IDs, agent names, organisations.

Sources: SPIFFE-ID specification sections 2.1-2.3 (character sets, 2048 bytes), RFC 5280 appendix A (64 characters for
CN and O), RFC 1123 (host labels). A name is checked once, here; afterwards it is only carried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from .errors import NameRefusedError

TRUST_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
AGENT_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,56}[a-z0-9])?")
PATH_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
MAX_SPIFFE_BYTES, MAX_DOMAIN_BYTES, MAX_ATTRIBUTE = 2048, 255, 64


def trust_domain(text: str) -> str:
    """Return a trust domain that is also a host name, so that a URI name constraint can name it."""
    if len(text) > MAX_DOMAIN_BYTES or not TRUST_DOMAIN.fullmatch(text):
        raise NameRefusedError(
            f"trust domain {text[:80]!r}: small letters, digits, '-' and '.', at most 255 (example: kosmos.internal)"
        )
    return text


def spiffe_id(domain: str, *segments: str) -> str:
    """Return `spiffe://<domain>/<segment>/...`. Raises NameRefusedError."""
    for segment in segments:
        if not PATH_SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise NameRefusedError(f"SPIFFE path segment {segment[:80]!r}: letters, digits, '.', '_' and '-' only")
    if not segments:
        raise NameRefusedError(f"spiffe://{domain}: the name of a workload needs a path")
    text = f"spiffe://{trust_domain(domain)}/{'/'.join(segments)}"
    if len(text.encode()) > MAX_SPIFFE_BYTES:
        raise NameRefusedError(f"SPIFFE-ID of {len(text)} bytes, at most {MAX_SPIFFE_BYTES}")
    return text


def attribute(kind: str, text: str) -> str:
    """Return a subject attribute that is printable, not empty and short enough."""
    if not text or text != text.strip() or not text.isprintable() or len(text) > MAX_ATTRIBUTE:
        raise NameRefusedError(f"{kind} {text[:80]!r}: 1 to {MAX_ATTRIBUTE} printable characters, no outer blanks")
    return text


def subject(common_name: str, organization: str) -> x509.Name:
    """Return the subject CN=..., O=... in this order."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, attribute("common name", common_name)),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, attribute("organisation", organization)),
        ]
    )


@dataclass(frozen=True)
class AgentName:
    """The identity of one agent: CN `agent-<id>`, O from configuration, URI SAN `spiffe://<domain>/agent/<id>`."""

    domain: str
    agent: str
    organization: str

    def __post_init__(self) -> None:
        trust_domain(self.domain)
        attribute("organisation", self.organization)
        if not AGENT_ID.fullmatch(self.agent):
            raise NameRefusedError(
                f"agent id {self.agent[:80]!r}: 1 to 58 small letters, digits and inner '-' (example: planner-1)"
            )

    @property
    def common_name(self) -> str:
        """Return `agent-<id>`."""
        return f"agent-{self.agent}"

    @property
    def uri(self) -> str:
        """Return the SPIFFE-ID."""
        return spiffe_id(self.domain, "agent", self.agent)

    @property
    def names(self) -> tuple[x509.GeneralName, ...]:
        """Return the subject alternative names: exactly one URI (X509-SVID section 2)."""
        return (x509.UniformResourceIdentifier(self.uri),)

    @property
    def subject(self) -> x509.Name:
        """Return the subject."""
        return subject(self.common_name, self.organization)


@dataclass(frozen=True)
class ServiceName:
    """The identity of one service: its host names, and CN the first of them; or a `title` (a time-stamping signer)."""

    organization: str
    hosts: tuple[str, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        attribute("organisation", self.organization)
        if bool(self.hosts) == bool(self.title):
            raise NameRefusedError("a service has host names, a signer without network name has a title: give one")
        for host in self.hosts:
            if len(host) > MAX_DOMAIN_BYTES or not TRUST_DOMAIN.fullmatch(host):
                raise NameRefusedError(f"host name {host[:80]!r}: small letters, digits, '-' and '.' only")

    @property
    def common_name(self) -> str:
        """Return the title, or the first host name where it fits; the names that count are the SANs."""
        return self.title or self.hosts[0][:MAX_ATTRIBUTE]

    @property
    def names(self) -> tuple[x509.GeneralName, ...]:
        """Return the subject alternative names."""
        return tuple(x509.DNSName(host) for host in self.hosts)

    @property
    def subject(self) -> x509.Name:
        """Return the subject."""
        return subject(self.common_name, self.organization)
