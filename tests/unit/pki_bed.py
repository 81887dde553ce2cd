"""What the tests of the PKI and of the enrolment share: a small PKI, requests, and the real `openssl` as judge."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from kosmos_trust.pki.authority import new_key
from kosmos_trust.pki.keeper import Keeper, pem
from kosmos_trust.pki.keys import PlainFile, Protector
from kosmos_trust.pki.names import AgentName
from kosmos_trust.pki.profiles import P384, authorities

DOMAIN, ORGANIZATION = "kosmos.internal", "Example Works"
#: OpenSSL compares with its own clock, so issued things must be valid now.
NOW = datetime.now(UTC).replace(microsecond=0)
WEEK = timedelta(days=7)
PROFILES = authorities(DOMAIN)
AGENT_NAME = AgentName(DOMAIN, "planner-1", ORGANIZATION)


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def keeper(folder: Path, clock: Clock | None = None, protector: Protector | None = None) -> Keeper:
    return Keeper(folder, protector or PlainFile(), clock or Clock(), os.urandom)


def whole_pki(made: Keeper, names: Iterable[str] = tuple(PROFILES)) -> Keeper:
    for name in names:
        profile = PROFILES[name]
        made.ensure(profile, ORGANIZATION, made.load(profile.issuer) if profile.issuer else None)
    return made


def request(
    *names: x509.GeneralName,
    key: ec.EllipticCurvePrivateKey | None = None,
    digest: hashes.HashAlgorithm | None = None,
    extensions: Iterable[x509.ExtensionType] = (),
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key or new_key(P384), digest or hashes.SHA384()).public_bytes(Encoding.PEM)


def openssl(*words: str | Path, check: bool = True, **options: object) -> str:
    done = subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def verify(
    folder: Path,
    leaf: x509.Certificate,
    root: x509.Certificate,
    chain: Iterable[x509.Certificate],
    *options: str | Path,
) -> str:
    """Return what `openssl verify` says of a leaf; the text ends with `: OK` only if it is content."""
    for name, certificates in (("root.pem", [root]), ("chain.pem", list(chain) or [root]), ("leaf.pem", [leaf])):
        (folder / name).write_bytes(pem(certificates))
    words = ("-x509_strict", *options, "-CAfile", folder / "root.pem", "-untrusted", folder / "chain.pem")
    return openssl("verify", *words, folder / "leaf.pem", check=False).strip()
