"""The authorities and what they issue, judged by the real `openssl`."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from pki_bed import AGENT_NAME, DOMAIN, NOW, ORGANIZATION, PROFILES, keeper, openssl, request, verify, whole_pki

from kosmos_trust.pki.authority import Authority, certify, new_key, random_serial, serial_text
from kosmos_trust.pki.errors import NameRefusedError, PkiError, RequestRefusedError
from kosmos_trust.pki.issue import issue
from kosmos_trust.pki.keeper import Keeper, pem
from kosmos_trust.pki.keys import plain_pem
from kosmos_trust.pki.names import AgentName, ServiceName, spiffe_id
from kosmos_trust.pki.profiles import AGENT, P256, P384, SERVICE, TIMESTAMP, LeafProfile


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Keeper:
    return whole_pki(keeper(tmp_path_factory.mktemp("pki") / "pki"))


def granted(authority: Authority, csr: bytes, name: object, profile: LeafProfile, **more: object) -> x509.Certificate:
    return issue(authority, csr, name, profile, now=NOW, random=os.urandom, **more)


def test_an_agent_certificate_is_what_the_gateway_expects(pki: Keeper, tmp_path: Path) -> None:
    agents = pki.load("agents")
    key = new_key(P384)
    leaf = pki.issue("agents", request(key=key), AGENT_NAME, AGENT)
    assert verify(tmp_path, leaf, agents.root, agents.chain, "-purpose", "sslclient").endswith(": OK")
    told = openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-text", "-nameopt", "RFC2253")
    assert "Subject: O=Example Works,CN=agent-planner-1" in told
    assert "URI:spiffe://kosmos.internal/agent/planner-1" in told
    assert "DNS:" not in told
    assert "TLS Web Client Authentication" in told
    assert "Server Auth" not in told
    assert "ecdsa-with-SHA384" in told
    assert leaf.not_valid_after_utc - NOW == timedelta(days=90)
    assert "not OK" not in told
    refused = verify(tmp_path, leaf, agents.root, agents.chain, "-purpose", "sslserver")
    assert "unsuitable certificate purpose" in refused


@pytest.mark.parametrize("name", PROFILES)
def test_each_authority_has_its_curve_length_and_digest(pki: Keeper, tmp_path: Path, name: str) -> None:
    authority, profile = pki.load(name), PROFILES[name]
    assert authority.curve == profile.curve
    limit = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert limit.critical
    assert (limit.value.ca, limit.value.path_length) == (True, profile.path_length)
    assert verify(tmp_path, authority.certificate, authority.root, authority.chain[1:]).endswith(": OK")
    text = openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-text")
    assert ("ecdsa-with-SHA256" if name.startswith("mesh") else "ecdsa-with-SHA384") in text


FOREIGN = [
    ("agents", x509.UniformResourceIdentifier("spiffe://evil.example/agent/planner-1"), False),
    ("agents", x509.UniformResourceIdentifier("spiffe://sub.kosmos.internal/agent/planner-1"), False),
    ("agents", x509.DNSName("www.kosmos.internal"), False),
    ("agents", x509.RFC822Name("root@kosmos.internal"), False),
    ("agents", x509.UniformResourceIdentifier("spiffe://kosmos.internal/agent/other"), True),
    ("services", x509.DNSName("bank.example"), False),
    ("services", x509.DNSName("auth.kosmos.internal"), True),
    ("services", x509.IPAddress(ip_address("127.0.0.1")), False),
    ("mesh-issuer", x509.DNSName("auth.kosmos.internal"), False),
    ("mesh-issuer", x509.DNSName("a.ns.serviceaccount.identity.linkerd.cluster.local"), True),
    ("timestamping", x509.DNSName("tsa.kosmos.internal"), False),
]


@pytest.mark.parametrize(("name", "san", "good"), FOREIGN)
def test_name_constraints_refuse_a_foreign_name(
    pki: Keeper, tmp_path: Path, name: str, san: x509.GeneralName, good: bool
) -> None:
    """The authority's key itself signs the name, as a thief of the key would."""
    authority = pki.load(name)
    key = new_key(P384)
    builder = authority.builder(NOW, timedelta(days=1), os.urandom).subject_name(AGENT_NAME.subject)
    builder = builder.public_key(key.public_key()).add_extension(x509.SubjectAlternativeName([san]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    said = verify(tmp_path, authority.sign(builder), authority.root, authority.chain)
    assert said.endswith(": OK") if good else "permitted subtree violation" in said or "excluded subtree" in said


def test_an_agents_authority_may_have_none_below_it(pki: Keeper, tmp_path: Path) -> None:
    agents, key = pki.load("agents"), new_key(P384)
    with pytest.raises(PkiError, match="allows 0 authorities below"):
        certify(agents, PROFILES["services"], ORGANIZATION, key.public_key(), now=NOW, random=os.urandom)
    # A thief of the key does not ask us: openssl has to refuse.
    builder = agents.builder(NOW, timedelta(days=1), os.urandom).subject_name(ServiceName("x", title="sub").subject)
    builder = builder.public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    sub = Authority("sub", agents.sign(builder), (agents.certificate, *agents.issuers), key)
    leaf = granted(sub, request(), AGENT_NAME, AGENT)
    assert "path length constraint exceeded" in verify(tmp_path, leaf, sub.root, sub.chain)


def test_an_offline_root_certifies_a_key_that_it_never_sees(tmp_path: Path) -> None:
    operator = whole_pki(keeper(tmp_path / "operator"), ("root",))
    offline, key = operator.load("root"), new_key(P384)
    made = operator.certify("root", PROFILES["agents"], ORGANIZATION, key.public_key())
    assert serial_text(made.serial_number) in operator.register("root").issued()
    host = keeper(tmp_path / "host")
    host.adopt(Authority("agents", made, (offline.certificate,), key))
    leaf = host.issue("agents", request(), AGENT_NAME, AGENT)
    assert verify(tmp_path, leaf, offline.certificate, [made]).endswith(": OK")
    with pytest.raises(RequestRefusedError, match="on P-256, P-384 is needed"):
        certify(offline, PROFILES["agents"], ORGANIZATION, new_key(P256).public_key(), now=NOW, random=os.urandom)


def test_key_and_certificate_have_to_be_a_pair_and_the_chain_has_to_hold(pki: Keeper) -> None:
    agents, services = pki.load("agents"), pki.load("services")
    with pytest.raises(PkiError, match="not a pair"):
        Authority("agents", agents.certificate, agents.issuers, services.key)
    with pytest.raises(PkiError, match="is not signed by"):
        Authority("agents", agents.certificate, (services.certificate, *services.issuers), agents.key)


# -- requests ------------------------------------------------------------------------------------------------------
def test_requested_extensions_are_not_copied(pki: Keeper) -> None:
    wanted = (
        x509.BasicConstraints(ca=True, path_length=3),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
    )
    leaf = granted(pki.load("agents"), request(*AGENT_NAME.names, extensions=wanted), AGENT_NAME, AGENT)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def _broken_signature() -> bytes:
    der = bytearray(x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return bytes(der)


def _rsa() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


REFUSED = [
    (_broken_signature, "does not prove possession"),
    (_rsa, "ECDSA on P-384"),
    (lambda: request(key=ec.generate_private_key(ec.SECP521R1())), "secp521r1"),
    (lambda: request(key=new_key(P256), digest=hashes.SHA256()), "P-256, P-384 is needed; allow it explicitly"),
    (lambda: request(x509.UniformResourceIdentifier(spiffe_id(DOMAIN, "agent", "other"))), "agent/other"),
    (lambda: request(*AGENT_NAME.names, x509.DNSName("www.kosmos.internal")), "www.kosmos.internal"),
    (lambda: b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
    (lambda: b"", "cannot be read"),
    (lambda: b"0" * 20000, "at most 16384"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED)
def test_a_bad_request_is_refused_with_the_reason(pki: Keeper, make: object, said: str) -> None:
    before = pki.register("agents").path.read_bytes()
    with pytest.raises(RequestRefusedError, match=said):
        pki.issue("agents", make(), AGENT_NAME, AGENT)
    assert pki.register("agents").path.read_bytes() == before


def test_p256_only_when_told_and_never_for_time_stamps(pki: Keeper) -> None:
    csr = request(key=new_key(P256), digest=hashes.SHA256())
    assert granted(pki.load("agents"), csr, AGENT_NAME, AGENT, fallback=True)
    with pytest.raises(RequestRefusedError, match="P-384 is needed"):
        granted(pki.load("timestamping"), csr, ServiceName(ORGANIZATION, title="TSA"), TIMESTAMP, fallback=True)


def test_a_key_has_one_certificate_unless_reuse_is_told(pki: Keeper) -> None:
    key = new_key(P384)
    first = pki.issue("agents", request(key=key), AGENT_NAME, AGENT)
    with pytest.raises(RequestRefusedError, match="had a certificate before"):
        pki.issue("agents", request(key=key), AGENT_NAME, AGENT)
    again = pki.issue("agents", request(key=key), AGENT_NAME, AGENT, reuse_key=True)
    assert again.serial_number != first.serial_number
    with pytest.raises(RequestRefusedError, match="had a certificate before"):  # the authority's own key
        pki.issue("agents", request(key=pki.load("agents").key), AGENT_NAME, AGENT, reuse_key=True)


def test_lifetime_has_a_ceiling_and_never_outlives_the_authority(pki: Keeper) -> None:
    agents = pki.load("agents")
    with pytest.raises(RequestRefusedError, match="at most 90 days"):
        granted(agents, request(), AGENT_NAME, AGENT, lifetime=timedelta(days=91))
    with pytest.raises(RequestRefusedError, match="lifetime"):
        granted(agents, request(), AGENT_NAME, AGENT, lifetime=timedelta(0) - timedelta(days=1))
    end = agents.certificate.not_valid_after_utc
    late = issue(agents, request(), AGENT_NAME, AGENT, now=end - timedelta(days=3), random=os.urandom)
    assert late.not_valid_after_utc == end
    with pytest.raises(PkiError, match="set the clock"):
        issue(agents, request(), AGENT_NAME, AGENT, now=end, random=os.urandom)
    with pytest.raises(PkiError, match="set the clock"):
        issue(agents, request(), AGENT_NAME, AGENT, now=NOW - timedelta(days=1), random=os.urandom)


def test_serials_are_random_positive_and_short_enough() -> None:
    serials = {random_serial(os.urandom) for _ in range(500)}
    assert len(serials) == 500
    assert all(0 < serial < 1 << 159 for serial in serials)
    assert random_serial(lambda size: b"\xff" * size) < 1 << 159
    assert random_serial(bytes) == 1


@pytest.mark.parametrize("agent", ["", "A", "a b", "../x", "a" * 59, "-a", "a-", "a.b", "ä", "a\n"])
def test_bad_agent_names_are_refused(agent: str) -> None:
    with pytest.raises(NameRefusedError):
        AgentName(DOMAIN, agent, ORGANIZATION)


@pytest.mark.parametrize("domain", ["", "Kosmos", "a..b", ".a", "a/b", "a:1", "a" * 256, "a b", "a_b"])
def test_bad_domains_are_refused(domain: str) -> None:
    with pytest.raises(NameRefusedError):
        AgentName(domain, "a", ORGANIZATION)


@pytest.mark.parametrize("organization", ["", " x", "x" * 65, "a\0b", "a\nb"])
def test_bad_organisations_are_refused(organization: str) -> None:
    with pytest.raises(NameRefusedError):
        AgentName(DOMAIN, "a", organization)


# -- other peers ---------------------------------------------------------------------------------------------------
def test_a_time_stamp_by_the_issued_signer_verifies(pki: Keeper, tmp_path: Path) -> None:
    """RFC 3161 with `openssl ts`: request, reply signed by our certificate, verification up to our root."""
    key, authority = new_key(P384), pki.load("timestamping")
    leaf = pki.issue(
        "timestamping", request(key=key), ServiceName(ORGANIZATION, title="KOSMOS time-stamp 1"), TIMESTAMP
    )
    assert verify(tmp_path, leaf, authority.root, authority.chain, "-purpose", "timestampsign").endswith(": OK")
    (tmp_path / "key.pem").write_bytes(plain_pem(key))
    (tmp_path / "data").write_text("the ledger's head")
    (tmp_path / "serial").write_text("01\n")
    (tmp_path / "ts.cnf").write_text(
        f"[tsa]\ndefault_tsa=t\n[t]\nserial={tmp_path}/serial\ncrypto_device=builtin\nsigner_digest=sha384\n"
        "default_policy=1.2.3.4\ndigests=sha384\nordering=yes\ness_cert_id_chain=no\n"
    )
    openssl("ts", "-query", "-data", tmp_path / "data", "-sha384", "-cert", "-out", tmp_path / "q")
    signer = ("-signer", tmp_path / "leaf.pem", "-inkey", tmp_path / "key.pem", "-chain", tmp_path / "chain.pem")
    openssl(
        "ts", "-reply", "-config", tmp_path / "ts.cnf", "-queryfile", tmp_path / "q", *signer, "-out", tmp_path / "r"
    )
    check = ("-in", tmp_path / "r", "-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "chain.pem")
    assert "Verification: OK" in openssl("ts", "-verify", "-data", tmp_path / "data", *check)
    (tmp_path / "data").write_text("another head")
    assert "Verification: FAILED" in openssl("ts", "-verify", "-data", tmp_path / "data", *check, check=False)


def test_mutual_tls_with_a_real_server_takes_the_agent_and_refuses_a_service(pki: Keeper, tmp_path: Path) -> None:
    """`openssl s_server -Verify` with our service certificate; Python's TLS as the client."""
    agents, services = pki.load("agents"), pki.load("services")
    pairs = {}
    for who, name, profile, authority in (
        ("server", ServiceName(ORGANIZATION, (f"gateway.{DOMAIN}",)), SERVICE, services),
        ("agent", AGENT_NAME, AGENT, agents),
        ("peer", ServiceName(ORGANIZATION, (f"peer.{DOMAIN}",)), SERVICE, services),
    ):
        key = new_key(P384)
        leaf = pki.issue(authority.name, request(key=key), name, profile)
        pairs[who] = tmp_path / f"{who}.pem"
        pairs[who].write_bytes(plain_pem(key) + pem([leaf, *authority.chain]))
    (tmp_path / "root.pem").write_bytes(pem([agents.root]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pairs["server"], "-key", pairs["server"]]
    words += ["-cert_chain", pairs["server"], "-CAfile", tmp_path / "root.pem", "-Verify", "2", "-verify_return_error"]
    server = subprocess.Popen([*words, "-rev"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def say(pair: Path) -> bytes:
        context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
        context.load_cert_chain(pair)
        for _ in range(100):
            try:
                plain = socket.create_connection(("127.0.0.1", port), timeout=10)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        with plain, context.wrap_socket(plain, server_hostname=f"gateway.{DOMAIN}") as tls:
            tls.sendall(b"abc\n")
            return tls.recv(100)

    try:
        assert say(pairs["agent"]) == b"cba\n"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            assert say(pairs["peer"]), "an empty answer is a closed connection"
            raise AssertionError("a certificate without clientAuth was taken")
        assert say(pairs["agent"]) == b"cba\n"
    finally:
        server.terminate()
        server.wait(timeout=10)
