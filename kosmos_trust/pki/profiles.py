"""What each authority and each kind of certificate is, as data.

Constraints: RFC 5280 sections 4.2.1.9 (path length), 4.2.1.10 (names), 4.2.1.12 (extended key usage). A permitted
subtree restricts only its own name form, so every form that an authority has no use for is closed as well.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

P384, P256 = "P-384", "P-256"
CURVES: dict[str, ec.EllipticCurve] = {P384: ec.SECP384R1(), P256: ec.SECP256R1()}
#: The digest as strong as the curve (FIPS 186-5, section 6.1.1); Linkerd takes ECDSA with SHA-256 only.
DIGESTS: dict[str, hashes.SHA384 | hashes.SHA256] = {P384: hashes.SHA384(), P256: hashes.SHA256()}
MAX_AGENT_LIFETIME = timedelta(days=90)
_YEAR = timedelta(days=365)

#: A permitted subtree that no real name is in (RFC 2606). An empty excluded subtree would say the same, but OpenSSL
#: does not match URIs against it.
_NOBODY = "invalid"
_NO_ADDRESS = (
    x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
    x509.IPAddress(ipaddress.ip_network("::/0")),
)


@dataclass(frozen=True)
class Names:
    """Name constraints. An empty `permitted_*` closes that form of name; mail addresses always are."""

    permitted_dns: tuple[str, ...] = ()
    permitted_uri_hosts: tuple[str, ...] = ()
    permitted_networks: tuple[str, ...] = ()

    def extension(self) -> x509.NameConstraints:
        """Return the (critical) extension."""
        permitted: list[x509.GeneralName] = [x509.DNSName(name) for name in self.permitted_dns or (_NOBODY,)]
        permitted += [x509.UniformResourceIdentifier(host) for host in self.permitted_uri_hosts or (_NOBODY,)]
        permitted.append(x509.RFC822Name(_NOBODY))
        permitted += [x509.IPAddress(ipaddress.ip_network(network)) for network in self.permitted_networks]
        return x509.NameConstraints(permitted, None if self.permitted_networks else list(_NO_ADDRESS))


@dataclass(frozen=True)
class AuthorityProfile:
    """One certificate authority. Its issuer signs it with the digest of the curve `signed_with`, or of its own."""

    name: str
    title: str
    curve: str
    lifetime: timedelta
    path_length: int
    issuer: str | None
    names: Names | None = None
    usages: tuple[x509.ObjectIdentifier, ...] = ()
    signed_with: str | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeafProfile:
    """One kind of end certificate. `curves` are those accepted without a word; `fallback` only when told."""

    name: str
    usages: tuple[x509.ObjectIdentifier, ...]
    lifetime: timedelta
    curves: tuple[str, ...] = (P384,)
    fallback: tuple[str, ...] = (P256,)
    critical_usage: bool = False


def authorities(domain: str, mesh_domain: str = "cluster.local") -> dict[str, AuthorityProfile]:
    """Return the authorities of an appliance by name, each after its issuer.

    :param domain: trust domain of agents and host domain of services.
    :param mesh_domain: Linkerd's identity trust domain. `mesh` is its trust anchor, `mesh-issuer` its issuer.
    """
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    mesh = Names(permitted_dns=(mesh_domain,))
    made = (
        AuthorityProfile("root", "KOSMOS root", P384, 20 * _YEAR, 2, None),
        AuthorityProfile(
            "agents", "KOSMOS agents", P384, 5 * _YEAR, 0, "root", Names(permitted_uri_hosts=(domain,)), (client,)
        ),
        AuthorityProfile(
            "services",
            "KOSMOS services",
            P384,
            5 * _YEAR,
            0,
            "root",
            Names(permitted_dns=(domain,), permitted_uri_hosts=(domain,)),
            (server, client),
        ),
        AuthorityProfile(
            "timestamping",
            "KOSMOS time-stamping",
            P384,
            10 * _YEAR,
            0,
            "root",
            Names(),
            (ExtendedKeyUsageOID.TIME_STAMPING,),
        ),
        AuthorityProfile(
            "mesh", f"root.linkerd.{mesh_domain}", P256, 10 * _YEAR, 1, "root", mesh, (server, client), P256
        ),
        AuthorityProfile(
            "mesh-issuer",
            f"identity.linkerd.{mesh_domain}",
            P256,
            _YEAR,
            0,
            "mesh",
            mesh,
            (server, client),
            P256,
            (f"identity.linkerd.{mesh_domain}",),
        ),
    )
    return {profile.name: profile for profile in made}


AGENT = LeafProfile("agent", (ExtendedKeyUsageOID.CLIENT_AUTH,), MAX_AGENT_LIFETIME)
SERVICE = LeafProfile("service", (ExtendedKeyUsageOID.SERVER_AUTH,), MAX_AGENT_LIFETIME, curves=(P384, P256))
#: RFC 3161 section 2.3: this usage alone, and critical.
TIMESTAMP = LeafProfile("timestamp", (ExtendedKeyUsageOID.TIME_STAMPING,), 2 * _YEAR, fallback=(), critical_usage=True)
