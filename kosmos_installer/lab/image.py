"""Build the tools tree and the base disk from Debian packages. No loop device and no mount of an image is needed."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from kosmos_installer.errors import ExitCode, KosmosError

from . import recipe
from .mirror import SUITE, Mirror
from .progress import Progress
from .tools import Tools

SECTOR = 512
ESP_START, ESP_MIB = 2048, 256
DISK_GIB = 12
_SHIM, _GRUB = "./usr/lib/shim/", "./usr/lib/grub/x86_64-efi-signed/"
# Paths on the EFI partition, by the signed programs of shim-signed and grub-efi-amd64-signed. The removable path
# starts the disk on a machine whose NVRAM is empty.
_EFI_FILES = {
    "EFI/BOOT/BOOTX64.EFI": _SHIM + "shimx64.efi.signed",
    "EFI/BOOT/grubx64.efi": _GRUB + "grubx64.efi.signed",
    "EFI/BOOT/mmx64.efi": _SHIM + "mmx64.efi.signed",
}


def bootstrap_argv(
    target: Path, variant: str, packages: tuple[str, ...], mirror: Mirror, extra: tuple[str, ...] = ()
) -> list[str]:
    """Return the mmdebstrap command for a tar archive of Debian 13 with `packages` and no recommended ones."""
    settings = ('Apt::Install-Recommends "false";', *mirror.settings)
    return [
        "mmdebstrap",
        f"--variant={variant}",
        "--skip=download/empty,cleanup/reproducible",
        "--dpkgopt=force-unsafe-io",  # the archive is synced once, when it is complete
        *(f"--aptopt={line.rstrip(';')}" for line in settings),
        f"--include={','.join(packages)}",
        *extra,
        SUITE,
        str(target),
        *mirror.sources,
    ]


def _bootstrap(argv: list[str], log: Path) -> None:
    with log.open("w") as handle, subprocess.Popen(argv, stdout=handle, stderr=subprocess.STDOUT) as child:
        try:
            code = child.wait()
        except BaseException:
            child.terminate()  # it removes its own scratch tree, which takes until its current step has ended
            child.wait()
            raise
    if code != 0:
        text = log.read_text(errors="replace")
        unreachable = any(sign in text for sign in ("Failed to fetch", "Could not resolve", "Unable to connect"))
        errors = [line for line in text.splitlines() if line.startswith(("E:", "W:"))][-6:]
        raise KosmosError(
            "The Debian archive could not be read" if unreachable else "mmdebstrap could not build a Debian tree",
            where=" ".join(argv[-4:]),
            why="\n".join(errors or text.splitlines()[-6:]),
            cure="run 'apt-get update' here: if it fails too, repair the machine's sources; then run the command again",
            exit_code=ExitCode.MIRROR_UNREACHABLE if unreachable else ExitCode.FAILED,
        )


def build_tools(target: Path, packages: tuple[str, ...], mirror: Mirror, progress: Progress) -> None:
    """Fill `target/root` with `packages` of Debian 13 and what they depend on."""
    progress.say(f"Building a tools tree: {', '.join(packages)} (about half a minute)")
    tree, packed = target / "root", target / "root.tar"
    slim = tuple(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man"))
    _bootstrap(bootstrap_argv(packed, "apt", packages, mirror, slim), target / "build.log")
    tree.mkdir()
    with tarfile.open(packed) as tar:
        members = [member for member in tar if not member.isdev()]
        # Ownership plays no part here, so an ordinary user can unpack it; the archive is our own work.
        for member in members:
            member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
        tar.extractall(tree, members, numeric_owner=True, filter="fully_trusted")  # noqa: S202 - apt verified it
    packed.unlink()


def build_disk(target: Path, public_key: str, mirror: Mirror, tools: Tools, progress: Progress) -> None:
    """Write `target/disk.qcow2` (GPT: EFI partition, ext4 root) and `target/host_keys` (the SSH host keys, public)."""
    packed, files = target / "root.tar", target / "overlay.tar"
    progress.say(f"Installing Debian 13 ({len(recipe.PACKAGES)} packages and what they need; about a minute)")
    files.write_bytes(recipe.archive(recipe.overlay(public_key, mirror)))
    extra = tuple(f"--customize-hook={hook}" for hook in recipe.hooks(str(files)))
    _bootstrap(bootstrap_argv(packed, "important", recipe.PACKAGES, mirror, extra), target / "build.log")
    progress.say("Writing the disk: EFI partition, ext4 root")
    raw = target / "disk.raw"
    with raw.open("wb") as handle:
        handle.truncate(DISK_GIB << 30)
    root_start = ESP_START + ESP_MIB * 2048
    tools.run(
        "sgdisk",
        f"-n1:{ESP_START}:+{ESP_MIB}M",
        "-t1:EF00",
        "-c1:esp",
        f"-n2:{root_start}:0",
        "-t2:8304",
        "-c2:root",
        raw,
    )
    _write_esp(target, packed, raw, tools)
    root_kib = (DISK_GIB << 20) - root_start // 2 - 1024  # the last MiB holds the second GPT
    tools.run(
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", recipe.ROOT_UUID, "-d", packed,
        "-E", f"offset={root_start * SECTOR},lazy_itable_init=1,lazy_journal_init=1", raw, f"{root_kib}k",
    )  # fmt: skip
    tools.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target / "disk.qcow2")
    for leftover in (raw, packed, files):
        leftover.unlink()


def _write_esp(target: Path, packed: Path, raw: Path, tools: Tools) -> None:
    """Format the EFI partition inside `raw`, copy the boot programs there, and keep the SSH host keys."""
    # One sector per cluster: mkfs.vfat sizes clusters by the whole file when an offset is given.
    tools.run(
        "mkfs.vfat", "-F32", "-s1", "-n", "ESP", "-i", recipe.ESP_SERIAL,
        f"--offset={ESP_START}", raw, str(ESP_MIB * 1024),
    )  # fmt: skip
    image = f"{raw}@@{ESP_START * SECTOR}"
    tools.run("mmd", "-i", image, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    scratch = target / "efi"
    scratch.mkdir()
    with tarfile.open(packed) as tar:
        wanted = {source: place for place, source in _EFI_FILES.items()}
        keys = []
        for member in tar:
            if member.name in wanted:
                stream = tar.extractfile(member)
                if stream is not None:
                    (scratch / Path(wanted[member.name]).name).write_bytes(stream.read())
            elif member.name.startswith("./etc/ssh/ssh_host_") and member.name.endswith("_key.pub"):
                stream = tar.extractfile(member)
                if stream is not None:
                    keys.append(" ".join(stream.read().decode().split()[:2]))
    (scratch / "grub.cfg").write_text(recipe.grub_stub())
    for place in _EFI_FILES:
        tools.run("mcopy", "-i", image, scratch / Path(place).name, f"::/{place}")
    tools.run("mcopy", "-i", image, scratch / "grub.cfg", "::/EFI/debian/grub.cfg")
    (target / "host_keys").write_text("".join(f"{key}\n" for key in sorted(keys)))
    for file in scratch.iterdir():
        file.unlink()
    scratch.rmdir()
