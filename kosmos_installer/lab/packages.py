"""Which Debian packages the lab needs on this machine. Named, never installed: `make lab` does that, and says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from kosmos_installer.errors import ExitCode, KosmosError

from .tools import FIRMWARE, OLDEST_QEMU, effective_root, host_qemu_major

# program -> package
ALWAYS = {
    "apt-get": "apt",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
}
# Needed only where the host's own QEMU serves; otherwise the tools tree in the cache holds these.
WITH_HOST_QEMU = {
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "qemu-img": "qemu-utils",
    "sgdisk": "gdisk",
    "swtpm": "swtpm",
    "swtpm_setup": "swtpm-tools",
}
_WITH_HOST_QEMU_FILES = {
    FIRMWARE / "OVMF_CODE_4M.fd": "ovmf",
    Path("/usr/lib/x86_64-linux-gnu/libarchive.so.13"): "libarchive13t64",
}
# Without root, mmdebstrap builds in a user namespace and needs the user's range of subordinate ids.
WITHOUT_ROOT = {"newuidmap": "uidmap"}
KEYRING = Path("/usr/share/keyrings/debian-archive-trixie-stable.gpg")


def absent(programs: Mapping[str, str], find: Callable[[str], str | None] = shutil.which) -> set[str]:
    """Return the packages of those `programs` that are not on PATH or in the administrator's directories."""
    return {package for program, package in programs.items() if not (find(program) or find(f"/usr/sbin/{program}"))}


def missing(host_qemu: int | None = None) -> list[str]:
    """Return the missing packages in alphabetical order; empty when the lab can start."""
    found = absent(ALWAYS if effective_root() else {**ALWAYS, **WITHOUT_ROOT})
    if not KEYRING.exists():
        found.add("debian-archive-keyring")
    if (host_qemu_major() if host_qemu is None else host_qemu) >= OLDEST_QEMU:
        found |= absent(WITH_HOST_QEMU)
        found |= {package for file, package in _WITH_HOST_QEMU_FILES.items() if not file.exists()}
    return sorted(found)


def install_command(packages: list[str]) -> str:
    """Return the command that a person runs to get `packages`."""
    return "sudo apt-get install --no-install-recommends " + " ".join(packages)


def require() -> None:
    """Raise `KosmosError` (exit code 2) that names every missing package at once."""
    names = missing()
    if names:
        raise KosmosError(
            "The lab needs Debian packages that this machine does not have",
            where="this machine",
            why="missing: " + ", ".join(names),
            cure=f"{install_command(names)}   ('make lab' does it)",
            exit_code=ExitCode.USAGE,
        )
