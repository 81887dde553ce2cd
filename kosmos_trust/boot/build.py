"""Make an image without signatures: dracut packs the initrd, ukify joins the parts. Only `staging` is written.

ukify gets no private key: signatures are made by `signing` and joined afterwards, on every host in the same way.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import pe
from .commands import Run, must
from .errors import CommandError

STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
#: What unlocks by TPM before the root is there; the phases are measured by systemd-pcrphase (dracut 106-6).
DRACUT_MODULES = ("systemd-cryptsetup", "systemd-pcrphase", "tpm2-tss")
_DRACUT_FAULTS = ("dracut[E]", "dracut[F]", "dracut-install: ERROR")
_KERNEL = re.compile(r"vmlinuz-([0-9][A-Za-z0-9.+~-]*)")


@dataclass(frozen=True)
class Parts:
    """What goes into an image: the kernel's version, the command line, the public key for new enrolments (a file)."""

    version: str
    cmdline: str
    public_key: Path
    boot: Path = Path("/boot")
    os_release: Path = Path("/etc/os-release")
    stub: Path = STUB

    @property
    def kernel(self) -> Path:
        """The kernel's file."""
        return self.boot / f"vmlinuz-{self.version}"


def newest_kernel(boot: Path = Path("/boot")) -> str:
    """Return the version of the newest installed kernel, its numbers compared as such. Raises CommandError: none."""
    versions = [match.group(1) for path in boot.glob("vmlinuz-*") if (match := _KERNEL.fullmatch(path.name))]
    if not versions:
        raise CommandError("there is no kernel", where=str(boot), cure="apt-get install linux-image-amd64")
    return max(versions, key=_version_key)


def _version_key(version: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"[0-9]+|[^0-9]+", version)]


def dracut_argv(version: str, output: Path) -> list[str]:
    """Return the command that packs the initrd; not for this machine's disks only, so that it starts on a spare."""
    return [
        "dracut", "--force", "--quiet", "--reproducible", "--no-hostonly", "--no-uefi",
        "--add", " ".join(DRACUT_MODULES), "--kver", version, str(output),
    ]  # fmt: skip


def ukify_argv(parts: Parts, initrd: Path, output: Path) -> list[str]:
    """Return the command that joins the parts (ukify 257)."""
    return [
        "ukify", "build", f"--stub={parts.stub}", f"--linux={parts.kernel}", f"--initrd={initrd}",
        f"--cmdline={parts.cmdline}", f"--os-release=@{parts.os_release}", f"--uname={parts.version}",
        f"--pcrpkey={parts.public_key}", f"--output={output}",
    ]  # fmt: skip


def build(parts: Parts, staging: Path, run: Run) -> pe.Image:
    """Build into an empty `staging` and return the image.

    Raises CommandError when a part is missing or a program fails, ImageError when its result is not an image.
    """
    for needed in (parts.kernel, parts.stub, parts.os_release, parts.public_key):
        if not needed.is_file():
            raise CommandError(
                "a part of the image is missing", where=str(needed), cure="apply the role host_boot again"
            )
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700, parents=True)
    initrd, output = staging / "initrd", staging / "unsigned.efi"
    _pack(run, dracut_argv(parts.version, initrd))
    must(run, ukify_argv(parts, initrd, output), "the image cannot be made", "see what ukify says")
    return pe.read(output)


def _pack(run: Run, argv: list[str]) -> None:
    """Run dracut, which tells of a file that it could not put in, and then ends with exit code 0."""
    done = run(argv)
    faults = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.startswith(_DRACUT_FAULTS)]
    if done.code != 0 or faults:
        why = " / ".join(faults[-3:]) or f"exit code {done.code}: {(done.stderr.strip() or 'it said nothing')[-300:]}"
        raise CommandError(
            "the initrd cannot be made", where="dracut", why=why,
            cure="install what it misses (tpm2-tools, systemd-cryptsetup, systemd-sysv), then: kosmos-boot update",
        )  # fmt: skip
