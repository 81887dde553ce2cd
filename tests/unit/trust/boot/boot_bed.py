"""Real boot images, made by Debian 13's own ukify and systemd-measure, from the project's tools tree.

`python tests/unit/trust/boot/boot_bed.py` builds the tree; without it the tests that need it are skipped by name.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kosmos_installer.errors import KosmosError
from kosmos_installer.lab.dirs import Dirs
from kosmos_installer.lab.progress import Progress, Silence
from kosmos_installer.lab.tools import Tools, effective_root
from kosmos_installer.lab.workshop import Workshop
from kosmos_trust.boot.prediction import ALL_PATHS, INITRD_PATHS

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
MEASURE = "/usr/lib/systemd/systemd-measure"
CMDLINE = "root=PARTUUID=6b6f736d-6f73-4c61-8b00-726f6f740013 ro quiet"
UNAME = "6.12.48+deb13-amd64"
OSREL = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'


def require_tools(*shared: Path) -> Tools:
    """Return the tools with `shared` at the same paths, or skip with the reason."""
    if not effective_root():
        pytest.skip("Debian 13's boot tools run in a tree that only root can enter with these mounts")
    try:
        tools = Workshop(Dirs.from_environment(), Silence()).boot_tools(*shared, build=False)
    except (KosmosError, OSError) as error:
        pytest.skip(f"the tools tree cannot be named here: {error}")
    if tools is None:
        pytest.skip(
            f"Debian 13's boot tools are not built; build them with: python tests/unit/trust/boot/{Path(__file__).name}"
        )
    return tools


@dataclass(frozen=True)
class Key:
    """One key as files."""

    private: Path
    public: Path
    rsa: rsa.RSAPrivateKey


def make_key(folder: Path, name: str) -> Key:
    return write_key(folder, name, rsa.generate_private_key(public_exponent=65537, key_size=2048))


def write_key(folder: Path, name: str, key: Any) -> Key:
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return Key(private, public, key)


class Bench:
    """A folder, the tools that see it, two keys, and the parts of an image."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tools = folder, require_tools(folder)
        self.initrd_key, self.all_key = make_key(folder, "initrd"), make_key(folder, "all")
        self.foreign = make_key(folder, "foreign")
        self.kernel = folder / "vmlinuz"
        self.kernel.write_bytes(self.tools.file(STUB).read_bytes())
        self.initrd = folder / "initrd"
        self.initrd.write_bytes(b"070701 not a real archive " * 4000)
        (folder / "cmdline").write_text(CMDLINE)
        (folder / "osrel").write_text(OSREL)

    def ukify(self, name: str, *options: str, cmdline: str = CMDLINE) -> Path:
        """Make an image; without key options it is unsigned."""
        output = self.folder / name
        self.tools.run(
            "ukify", "build", f"--stub={STUB}", f"--linux={self.kernel}", f"--initrd={self.initrd}",
            f"--cmdline={cmdline}", f"--os-release=@{self.folder}/osrel", f"--uname={UNAME}",
            f"--pcrpkey={self.all_key.public}", *options, f"--output={output}",
        )  # fmt: skip
        return output

    def signed(self, name: str, initrd: Key | None = None, whole: Key | None = None, cmdline: str = CMDLINE) -> Path:
        """Make an image signed by ukify itself with both keys, each for its phases."""
        initrd, whole = initrd or self.initrd_key, whole or self.all_key
        options = ["--pcr-banks=sha256,sha384"]
        for key, paths in ((initrd, INITRD_PATHS), (whole, ALL_PATHS)):
            options += [f"--pcr-private-key={key.private}", f"--pcr-public-key={key.public}"]
            options += [f"--phases={' '.join(paths)}"]
        return self.ukify(name, *options, cmdline=cmdline)

    def section(self, image: Path, name: str) -> bytes:
        """Return a section as GNU-independent `ukify inspect` sees it (text sections only)."""
        told = json.loads(self.tools.run("ukify", "inspect", image, "--json=short", "--all"))
        text = told[name]["text"]
        assert isinstance(text, str)
        return text.encode()


if __name__ == "__main__":
    Workshop(Dirs.from_environment(), Progress(sys.stderr)).boot_tools()
