"""The authorities of one machine on disk, and everything that is done with them.

    <folder>/<name>                        link to the authority in use, changed by one rename
    <folder>/generations/<name>-<serial>/  certificate.pem issuers.pem key kind register.jsonl crl.pem

A generation is complete and synced before the link names it. An authority that exists is never made again; one that is
gone while data still needs it is a RecoveryNeededError.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from kosmos_trust.durable import sync_folder

from .authority import Authority, Random, certify, make_intermediate, make_root, serial_text
from .crl import make_crl
from .errors import KeyUnavailableError, RecoveryNeededError, StoreError
from .issue import Name, issue
from .keys import Protector
from .profiles import AuthorityProfile, LeafProfile
from .register import Register
from .store import PUBLIC, exclusive, make_folder, read_file, write_file

CERTIFICATE, ISSUERS, KEY, KIND, REGISTER, CRL = (
    "certificate.pem",
    "issuers.pem",
    "key",
    "kind",
    "register.jsonl",
    "crl.pem",
)
#: What follows the name of an authority in the name of a generation: its serial.
GENERATION = re.compile("[0-9A-F]+")


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return certificates one after the other in PEM."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


@dataclass
class Keeper:
    """The authorities below `folder`, their keys kept by `protector`."""

    folder: Path
    protector: Protector
    clock: Callable[[], datetime]
    random: Random

    # -- having an authority -------------------------------------------------------------------------------------
    def exists(self, name: str) -> bool:
        """Return whether the authority was made."""
        return (self.folder / name).is_symlink()

    def has(self, name: str, certificate: x509.Certificate) -> bool:
        """Return whether this generation of an authority is here, in use or not."""
        serial = serial_text(certificate.serial_number)
        return (self.folder / "generations" / f"{name}-{serial}" / CERTIFICATE).exists()

    def ensure(
        self,
        profile: AuthorityProfile,
        organization: str,
        issuer: Authority | None = None,
        needed_by: Iterable[Path] = (),
    ) -> tuple[Authority, bool]:
        """Return the authority, and whether it was made now.

        :param needed_by: files that were made with this authority; with one of them there it is never made anew.
        Raises RecoveryNeededError, StoreError, KeyUnavailableError.
        """
        with exclusive(self.folder / ".lock"):
            if self.exists(profile.name):
                return self.load(profile.name), False
            there = [str(path) for path in needed_by if path.exists()]
            if there:
                raise RecoveryNeededError(
                    f"the authority '{profile.name}' is gone from {self.folder}, but {there[0]} was made with it and "
                    "would be worthless under a new one. Nothing was changed. Restore the PKI from its backup (a file "
                    "*.age and its passphrase, kept off this machine); only if there is none, move away what needs it: "
                    + ", ".join(there)
                )
            now = self.clock()
            if issuer is None:
                made = make_root(profile, organization, now=now, random=self.random)
            else:
                made = self._intermediate(profile, organization, issuer)
            self._adopt(made)
            return made, True

    def replace(self, profile: AuthorityProfile, organization: str, issuer: Authority) -> Authority:
        """Make a successor with a new key; the old generation stays, its certificates stay valid."""
        with exclusive(self.folder / ".lock"):
            made = self._intermediate(profile, organization, issuer)
            self._adopt(made)
            return made

    def _intermediate(self, profile: AuthorityProfile, organization: str, issuer: Authority) -> Authority:
        made = make_intermediate(issuer, profile, organization, now=self.clock(), random=self.random)
        if self.exists(issuer.name):
            self.register(issuer.name).note_issued(made.certificate)
        return made

    def certify(
        self, issuer: str, profile: AuthorityProfile, organization: str, public: ec.EllipticCurvePublicKey
    ) -> x509.Certificate:
        """Certify an authority whose key is elsewhere, written down first. Raises as authority.certify does."""
        made = certify(self.load(issuer), profile, organization, public, now=self.clock(), random=self.random)
        self.register(issuer).note_issued(made)
        return made

    def adopt(self, authority: Authority, register: bytes = b"", crl: bytes = b"", *, use: bool = True) -> None:
        """Take over an authority that was certified by an offline root, or restored; `use` it from now on.

        Raises StoreError.
        """
        with exclusive(self.folder / ".lock"):
            self._adopt(authority, register, crl, use=use)

    def _adopt(self, authority: Authority, register: bytes = b"", crl: bytes = b"", *, use: bool = True) -> None:
        generation = f"{authority.name}-{serial_text(authority.certificate.serial_number)}"
        folder = self.folder / "generations" / generation
        make_folder(folder)
        write_file(folder / KEY, self.protector.wrap(generation, authority.key))
        write_file(folder / KIND, self.protector.kind.encode())
        write_file(folder / ISSUERS, pem(authority.issuers), PUBLIC)
        write_file(folder / REGISTER, register)
        if crl:
            write_file(folder / CRL, crl, PUBLIC)
        write_file(folder / CERTIFICATE, pem([authority.certificate]), PUBLIC)
        # What cannot be read back now would be missed when it is needed.
        self.load_from(authority.name, folder)
        if not use:
            return
        new = self.folder / f".{authority.name}.new"
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        new.symlink_to(Path("generations") / generation)
        new.replace(self.folder / authority.name)
        sync_folder(self.folder)

    def load(self, name: str) -> Authority:
        """Return the authority in use. Raises StoreError, KeyUnavailableError."""
        if not self.exists(name):
            raise StoreError(f"{self.folder / name}: there is no authority '{name}'; make it first (trust_pki)")
        return self.load_from(name, self.folder / name)

    def load_from(self, name: str, folder: Path) -> Authority:
        """Return the authority of one generation. Raises StoreError, KeyUnavailableError."""
        certificates = x509.load_pem_x509_certificates(
            read_file(folder / CERTIFICATE, private=False) + read_file(folder / ISSUERS, private=False)
        )
        kind = read_file(folder / KIND).decode()
        if kind != self.protector.kind:
            raise KeyUnavailableError(
                f"{folder / KEY}: kept by '{kind}', but '{self.protector.kind}' is configured; "
                "set it back, or restore the PKI"
            )
        generation = f"{name}-{serial_text(certificates[0].serial_number)}"
        key = self.protector.unwrap(generation, read_file(folder / KEY))
        return Authority(name, certificates[0], tuple(certificates[1:]), key)

    def certificates(self, name: str) -> tuple[x509.Certificate, ...]:
        """Return certificate and issuers up to the root, without touching the key. Raises StoreError."""
        folder = self.folder / name
        data = read_file(folder / CERTIFICATE, private=False) + read_file(folder / ISSUERS, private=False)
        return tuple(x509.load_pem_x509_certificates(data))

    # -- using it ------------------------------------------------------------------------------------------------
    def register(self, name: str) -> Register:
        """Return the register of the authority in use."""
        return Register((self.folder / name).resolve() / REGISTER)

    def issue(
        self,
        name: str,
        csr: bytes,
        subject: Name,
        profile: LeafProfile,
        *,
        lifetime: timedelta | None = None,
        fallback: bool = False,
        reuse_key: bool = False,
    ) -> x509.Certificate:
        """Grant a request, written down in the register before it is returned. Raises PkiError and its kinds."""
        authority, register = self.load(name), self.register(name)
        certificate = issue(
            authority,
            csr,
            subject,
            profile,
            now=self.clock(),
            random=self.random,
            lifetime=lifetime,
            fallback=fallback,
            used_keys=() if reuse_key else register.keys(),
        )
        register.note_issued(certificate)
        return certificate

    def revoke(self, name: str, serial: str, reason: str, valid_for: timedelta) -> bool:
        """Revoke, and publish a new list in any case; return False where it was revoked before.

        A serial of an earlier generation is revoked there.
        """
        folders = self.folders(name)
        folder = next((one for one in folders if serial in Register(one / REGISTER).issued()), folders[0])
        changed = Register(folder / REGISTER).revoke(serial, reason, self.clock())
        self._publish(name, folder, valid_for)
        return changed

    def crl(self, name: str) -> x509.CertificateRevocationList | None:
        """Return the published list of the authority in use, None before the first. Raises StoreError."""
        return self._crl(self.folder / name)

    def publish(self, name: str, valid_for: timedelta) -> list[x509.CertificateRevocationList]:
        """Sign and store new lists: of the authority in use, then of earlier generations that are still valid.

        Their certificates are in use until they end, and a gateway wants a fresh list of every issuer.
        Raises StoreError, KeyUnavailableError.
        """
        return [self._publish(name, folder, valid_for) for folder in self.folders(name)]

    def folders(self, name: str) -> list[Path]:
        """Return the folders of the generation in use, then of earlier ones that are still valid."""
        in_use, now = (self.folder / name).resolve(), self.clock()
        found = [in_use]
        for path in sorted((self.folder / "generations").glob(f"{name}-*")):
            mine = GENERATION.fullmatch(path.name.removeprefix(f"{name}-")) and (path / CERTIFICATE).exists()
            if mine and path != in_use:
                certificate = x509.load_pem_x509_certificate(read_file(path / CERTIFICATE, private=False))
                found += [path] if certificate.not_valid_after_utc > now else []
        return found

    def _crl(self, folder: Path) -> x509.CertificateRevocationList | None:
        path = folder / CRL
        return x509.load_pem_x509_crl(read_file(path, private=False)) if path.exists() else None

    def _publish(self, name: str, folder: Path, valid_for: timedelta) -> x509.CertificateRevocationList:
        authority, register = self.load_from(name, folder), Register(folder / REGISTER)
        with exclusive(folder / f".{CRL}.lock"):
            made = make_crl(
                authority,
                register.issued(),
                register.revoked().values(),
                now=self.clock(),
                valid_for=valid_for,
                previous=self._crl(folder),
            )
            write_file(folder / CRL, made.public_bytes(Encoding.PEM), PUBLIC)
        return made
