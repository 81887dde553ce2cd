"""The folders of one agent: complete generations, and one link that names the one in use.

<folder>/current                  link, changed by one rename
<folder>/generations/<serial>/    key.pem cert.pem chain.pem fullchain.pem request.pem
<folder>/staging-<run>/           what is not complete yet
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from kosmos_trust.durable import sync_folder

from ..pki.authority import serial_text
from ..pki.errors import StoreError
from ..pki.keeper import pem
from ..pki.store import PUBLIC, make_folder, read_file, write_file

CERTIFICATE, CHAIN, FULL_CHAIN, REQUEST = "cert.pem", "chain.pem", "fullchain.pem", "request.pem"
#: What the authority calls the certificate.
REFERENCE = "reference"


@dataclass(frozen=True)
class Pair:
    """A certificate and its chain (without the root), and the folder that also holds its key."""

    folder: Path
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]

    @property
    def serial(self) -> str:
        """Return the serial as upper-case hexadecimal."""
        return serial_text(self.certificate.serial_number)


class Generations:
    """The generations of one agent below its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def link(self) -> Path:
        """Return the path that services read through."""
        return self.folder / "current"

    def path(self, serial: str) -> Path:
        """Return the folder of a generation."""
        return self.folder / "generations" / serial

    def staging(self, run: str) -> Path:
        """Return the folder in which a run prepares its generation."""
        return self.folder / f"staging-{run}"

    def stagings(self) -> list[Path]:
        """Return what cut runs left."""
        return sorted(self.folder.glob("staging-*"))

    def load(self, folder: Path) -> Pair:
        """Return the pair of a folder. Raises StoreError."""
        data = read_file(folder / CERTIFICATE, private=False)
        chain = read_file(folder / CHAIN, private=False)
        try:
            issuers = x509.load_pem_x509_certificates(chain) if chain.strip() else []
            return Pair(folder, x509.load_pem_x509_certificate(data), tuple(issuers))
        except (ValueError, x509.InvalidVersion) as error:
            raise StoreError(f"{folder}: the certificate cannot be read; it will be replaced") from error

    def current(self) -> Pair | None:
        """Return the pair in use, None where there is none. Raises StoreError when it cannot be read."""
        return self.load(self.link.resolve()) if self.link.is_symlink() else None

    def reference(self, serial: str) -> str:
        """Return what the authority calls a certificate, empty where that is not known. Raises StoreError."""
        path = self.path(serial) / REFERENCE
        return read_file(path).decode() if path.exists() else ""

    def serial_in_use(self) -> str:
        """Return the name of the generation in use, empty where there is none."""
        return self.link.readlink().name if self.link.is_symlink() else ""

    def write(self, folder: Path, certificate: x509.Certificate, chain: Iterable[x509.Certificate]) -> None:
        """Put certificate and chain beside the key, durably. Raises StoreError."""
        chain = tuple(chain)
        write_file(folder / CHAIN, pem(chain), PUBLIC)
        write_file(folder / FULL_CHAIN, pem([certificate, *chain]), PUBLIC)
        write_file(folder / CERTIFICATE, pem([certificate]), PUBLIC)

    def promote(self, run: str, serial: str) -> Path:
        """Turn a complete staging folder into a generation; doing it again is harmless. Raises StoreError."""
        staging, target = self.staging(run), self.path(serial)
        make_folder(target.parent)
        if staging.is_dir() and not target.exists():
            sync_folder(staging)
            staging.rename(target)
            sync_folder(target.parent)
            sync_folder(self.folder)
        if not target.is_dir():
            raise StoreError(f"{target}: neither this generation nor its staging folder is there; enrol again")
        return target

    def flip(self, serial: str) -> None:
        """Let the link name a generation, in one rename; an empty serial takes the link away."""
        if not serial:
            self.link.unlink(missing_ok=True)
        else:
            new = self.folder / ".current.new"
            with contextlib.suppress(FileNotFoundError):
                new.unlink()
            new.symlink_to(Path("generations") / serial)
            new.replace(self.link)
        sync_folder(self.folder)

    def superfluous(self, keep: int, also: Iterable[str]) -> list[Path]:
        """Return the generations beyond the newest `keep`; those in use or in `also` are never among them."""
        needed = {self.serial_in_use(), *also}
        folders = sorted(self.folder.glob("generations/*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [path for path in folders[keep:] if path.name not in needed]

    def remove(self, folder: Path) -> None:
        """Remove a folder whose key is gone already."""
        shutil.rmtree(folder, ignore_errors=True)
        sync_folder(folder.parent)
