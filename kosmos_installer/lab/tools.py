"""The programs that make and run the machine: this host's, or those of a small Debian 13 tree in the cache.

QEMU 7.2 (Debian 12) panics the Debian 13 kernel under emulation, so an older host gets QEMU 10 from a tree of its own.
Commands run there by `unshare --mount` and `chroot`, which exec each other: the pid that is started is the program's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kosmos_installer.errors import KosmosError

OLDEST_QEMU = 10
FIRMWARE = Path("/usr/share/OVMF")
PACKAGES = (
    "dosfstools", "e2fsprogs", "gdisk", "libarchive13t64", "mtools",
    "ovmf", "qemu-system-x86", "qemu-utils", "swtpm", "swtpm-tools",
)  # fmt: skip
#: What the appliance makes and signs its boot images with: the tests compare our own arithmetic with these programs.
BOOT_PACKAGES = (
    "cryptsetup-bin", "dmsetup", "dracut", "libtss2-rc0t64", "libtss2-tcti-swtpm0t64", "openssl",
    "python3-cryptography", "sbsigntool", "swtpm", "swtpm-tools", "systemd-boot-efi", "systemd-cryptsetup",
    "systemd-ukify", "tpm2-tools", "zstd",
)  # fmt: skip

# $1 is the tree, then the directories to show inside it at the same paths, then --, then the command.
_ENTER = """
root=$1; shift
while [ "$1" != -- ]; do mkdir -p "$root$1"; mount --rbind "$1" "$root$1"; shift; done
shift
exec chroot "$root" "$@"
"""


def qemu_major(version: str) -> int:
    """Return the major number in the output of `qemu-system-x86_64 --version`, 0 when there is none."""
    match = re.search(r"version (\d+)\.", version)
    return int(match.group(1)) if match else 0


def host_qemu_major() -> int:
    """Return the major version of this host's QEMU, 0 when it has none."""
    if shutil.which("qemu-system-x86_64") is None:
        return 0
    done = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False)
    return qemu_major(done.stdout)


@dataclass(frozen=True)
class Tools:
    """Turns a command into one that finds its program; `root` is None when the host's own programs serve."""

    root: Path | None
    shared: tuple[Path, ...]
    as_root: bool

    def argv(self, *command: str | Path) -> list[str]:
        """Return the argument list that runs `command`, whose paths below the shared directories stay valid."""
        words = [str(word) for word in command]
        if self.root is None:
            return words
        # Without root, a user namespace gives the two system calls that are needed and nothing else.
        user = [] if self.as_root else ["--user", "--map-root-user"]
        show = ["/dev", "/proc", *map(str, self.shared)]
        return ["unshare", *user, "--mount", "sh", "-euc", _ENTER, "sh", str(self.root), *show, "--", *words]

    def file(self, path: Path) -> Path:
        """Return where this process finds the file that the programs know as `path`."""
        return path if self.root is None else self.root / path.relative_to("/")

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Run to the end and return standard output; raise `KosmosError` with the program's own last words."""
        done = subprocess.run(self.argv(*command), capture_output=True, text=True, check=False, cwd=cwd)
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-8:]
            raise KosmosError(
                f"{command[0]} failed with exit code {done.returncode}",
                where=" ".join(map(str, command)),
                why="\n       ".join(last),
                cure="read the reason; if the disk is full, free some space; then run the same command again",
            )
        return done.stdout

    def version(self) -> str:
        """Return QEMU's version line: part of every golden machine's key, since a memory image fits one version."""
        return self.run("qemu-system-x86_64", "--version").splitlines()[0]


def effective_root() -> bool:
    """Tell whether this process is root, which decides the way into the tree."""
    return os.geteuid() == 0
