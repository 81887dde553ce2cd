"""Back the PKI up and bring it to another machine: a tar in an age file, opened by a passphrase.

Everything needed is inside: certificates, keys, registers, lists, escrow. Keys are plain inside the encryption, because
the TPM that wraps them at rest is what a backup has to survive; a restore wraps them for the machine it runs on.
By hand: `age -d bundle.age | tar -x`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from . import age
from .authority import Authority, serial_text
from .errors import StoreError
from .escrow import Escrow
from .keeper import CERTIFICATE, CRL, ISSUERS, KEY, REGISTER, Keeper, pem
from .keys import load_pem, plain_pem
from .store import read_file

VERSION = 1
MANIFEST, ESCROW = "manifest.json", "escrow.json"
MAX_MEMBERS, MAX_MEMBER_BYTES = 512, 16 * 1024 * 1024


@dataclass(frozen=True)
class Restored:
    """What a restore brought back: authorities by name and serial, and whether an escrow was in the bundle."""

    authorities: dict[str, str]
    escrow: bool = field(default=False)


@dataclass(frozen=True)
class _Packed:
    authority: Authority
    register: bytes
    crl: bytes
    in_use: bool


def back_up(
    keeper: Keeper,
    names: Iterable[str],
    passphrase: bytes,
    escrow: Escrow | None = None,
    work_factor: int = age.WORK_FACTOR,
) -> bytes:
    """Return the bundle of these authorities and the escrow. Raises PkiError and its kinds."""
    members: dict[str, bytes] = {}
    listed = []
    for name in names:
        for folder in keeper.folders(name):
            authority = keeper.load_from(name, folder)
            entry, serial = folder.name, serial_text(authority.certificate.serial_number)
            listed.append(
                {"name": name, "serial": serial, "folder": entry, "in_use": folder == keeper.folders(name)[0]}
            )
            members[f"{entry}/{CERTIFICATE}"] = pem([authority.certificate])
            members[f"{entry}/{ISSUERS}"] = pem(authority.issuers)
            members[f"{entry}/{KEY}"] = plain_pem(authority.key)
            members[f"{entry}/{REGISTER}"] = read_file(folder / REGISTER)
            if (folder / CRL).exists():
                members[f"{entry}/{CRL}"] = read_file(folder / CRL, private=False)
    if escrow and (data := escrow.data()):
        members[ESCROW] = data
    manifest = {"version": VERSION, "made": keeper.clock().isoformat(), "authorities": listed}
    members = {MANIFEST: json.dumps(manifest, indent=1).encode(), **members}
    return age.encrypt(_tar(members), passphrase, keeper.random, work_factor)


def restore(bundle: bytes, passphrase: bytes, keeper: Keeper, escrow: Escrow | None = None) -> Restored:
    """Bring a bundle to this machine; every pair and chain is proved before the first file is written.

    Running it again after a cut finishes it. Raises BundleError, and StoreError where another authority is in use.
    """
    members = _untar(age.decrypt(bundle, passphrase))
    found: list[_Packed] = []
    try:
        manifest = json.loads(members[MANIFEST])
        if manifest["version"] != VERSION:
            raise age.BundleError(f"the bundle has version {manifest['version']!r}, this program knows {VERSION}")
        for entry in manifest["authorities"]:
            name, at = str(entry["name"]), str(entry["folder"])
            own, *issuers = x509.load_pem_x509_certificates(members[f"{at}/{CERTIFICATE}"] + members[f"{at}/{ISSUERS}"])
            authority = Authority(name, own, tuple(issuers), load_pem(members[f"{at}/{KEY}"], None, name))
            register, crl = members[f"{at}/{REGISTER}"], members.get(f"{at}/{CRL}", b"")
            found.append(_Packed(authority, register, crl, entry["in_use"] is True))
    except (KeyError, ValueError, TypeError) as error:
        raise age.BundleError(f"the bundle's content is not a PKI backup: {type(error).__name__}") from None
    for one in found:
        if one.in_use:
            _refuse_other(keeper, one.authority)
    if escrow and ESCROW in members:
        escrow.restore(members[ESCROW])
    for one in found:
        here = keeper.has(one.authority.name, one.authority.certificate)
        if not here or (one.in_use and not keeper.exists(one.authority.name)):
            keeper.adopt(one.authority, one.register, one.crl, use=one.in_use)
    restored = {one.authority.name: serial_text(one.authority.certificate.serial_number) for one in found if one.in_use}
    return Restored(restored, ESCROW in members)


def _refuse_other(keeper: Keeper, authority: Authority) -> None:
    if not keeper.exists(authority.name):
        return
    if keeper.certificates(authority.name)[0] != authority.certificate:
        raise StoreError(
            f"{keeper.folder / authority.name}: another authority is in use here; "
            f"move {keeper.folder} away before a restore"
        )


def _tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _untar(data: bytes) -> dict[str, bytes]:
    """Return the regular files of a tar, in memory; nothing is written to a path that the archive names."""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for info in archive:
                if not info.isreg() or info.size > MAX_MEMBER_BYTES or len(members) >= MAX_MEMBERS:
                    raise age.BundleError(f"the bundle holds something unexpected: {Path(info.name).name[:80]!r}")
                stream = archive.extractfile(info)
                members[info.name] = stream.read() if stream else b""
    except tarfile.TarError as error:
        raise age.BundleError(f"the bundle's content is not a tar: {type(error).__name__}") from None
    return members
