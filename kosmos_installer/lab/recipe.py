"""What the system disk holds: Debian 13 as its installer leaves a server, and nothing of KOSMOS.

Left out on purpose: documentation tools (rebuilding the manual index takes minutes under emulation) and a swap area.
Added on purpose: the operator's key with passwordless sudo, a serial console, on which a kernel panic is seen, and
patience: on a busy machine an emulated disk needs more than systemd's 90 seconds to appear.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from .mirror import KEYRING, Mirror

OPERATOR = "operator"
HOSTNAME = "debian"
MANAGEMENT_INTERFACE = "enp0s6"
ROOT_UUID = "6b6f736d-6f73-4c61-8b00-726f6f740013"
ESP_SERIAL = "4B4F0013"
# A fixed identity: an empty machine-id makes systemd take each boot for the first and enable every unit anew.
MACHINE_ID = "6b6f736d6f734c618b00000000000013"
SERIAL_CONSOLE = "console=tty0 console=ttyS0,115200"

PACKAGES = (
    "apparmor", "bash-completion", "busybox", "ca-certificates", "dbus", "dosfstools", "efibootmgr",
    "grub-efi-amd64", "grub-efi-amd64-signed", "initramfs-tools", "less", "libpam-systemd", "linux-image-amd64",
    "openssh-client", "openssh-server", "python3", "python3-apt", "shim-signed", "sudo", "systemd-timesyncd", "zstd",
)  # fmt: skip

# Runs once in the started machine: what the installer's own last step does, with the real tools and real NVRAM.
FINISH = """
set -eu
export DEBIAN_FRONTEND=noninteractive
printf 'grub-efi-amd64 grub2/force_efi_extra_removable boolean true\\n' | debconf-set-selections
# "Targeted" in the installer's words: an initrd of 11 instead of 36 MB, ten seconds less in each emulated boot.
echo MODULES=dep > /etc/initramfs-tools/conf.d/driver-policy
update-initramfs -u
grub-install --target=x86_64-efi --efi-directory=/boot/efi --force-extra-removable
update-grub
apt-get -q update
journalctl --quiet --rotate --vacuum-time=1s
sync
"""


@dataclass(frozen=True)
class File:
    """One file of the overlay: octal permission bits and text."""

    mode: int
    text: str


def overlay(public_key: str, mirror: Mirror) -> dict[str, File]:
    """Return the files that the installer would have written, by path without the leading slash."""
    sources = "".join(line.replace("deb ", f"deb [signed-by={KEYRING}] ", 1) + "\n" for line in mirror.sources)
    files = {
        "etc/apt/sources.list": File(0o644, sources),
        "etc/default/grub.d/serial.cfg": File(
            0o644, f'GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX="{SERIAL_CONSOLE}"\nGRUB_TERMINAL="console serial"\n'
        ),
        "etc/fstab": File(
            0o644,
            f"UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n"
            f"UUID={ESP_SERIAL[:4]}-{ESP_SERIAL[4:]} /boot/efi vfat umask=0077 0 1\n",
        ),
        "etc/hostname": File(0o644, f"{HOSTNAME}\n"),
        "etc/hosts": File(
            0o644,
            f"127.0.0.1\tlocalhost\n127.0.1.1\t{HOSTNAME}\n\n::1\tlocalhost ip6-localhost ip6-loopback\n"
            "ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
        ),
        "etc/machine-id": File(0o444, f"{MACHINE_ID}\n"),
        "etc/network/interfaces": File(
            0o644,
            "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n"
            f"allow-hotplug {MANAGEMENT_INTERFACE}\niface {MANAGEMENT_INTERFACE} inet dhcp\n",
        ),
        f"etc/sudoers.d/{OPERATOR}": File(0o440, f"{OPERATOR} ALL=(ALL:ALL) NOPASSWD: ALL\n"),
        "etc/systemd/system.conf.d/emulation.conf": File(
            0o644, "[Manager]\nDefaultDeviceTimeoutSec=15min\nDefaultTimeoutStartSec=5min\n"
        ),
        f"home/{OPERATOR}/.ssh/authorized_keys": File(0o600, public_key.strip() + "\n"),
        # Only until FINISH has run update-grub in the machine itself.
        "boot/grub/grub.cfg": File(
            0o600,
            f"search --no-floppy --fs-uuid --set=root {ROOT_UUID}\n"
            f"linux /vmlinuz root=UUID={ROOT_UUID} ro {SERIAL_CONSOLE}\ninitrd /initrd.img\nboot\n",
        ),
    }
    if mirror.settings:
        files["etc/apt/apt.conf.d/90archive"] = File(0o644, "".join(f"{line}\n" for line in mirror.settings))
    return files


def grub_stub() -> str:
    """Return the small grub.cfg of the EFI partition, which only finds the real one."""
    return f"search.fs_uuid {ROOT_UUID} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"


def archive(files: Mapping[str, File]) -> bytes:
    """Return a tar archive of `files`, all owned by root; equal input gives equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, file in sorted(files.items()):
            data = file.text.encode()
            member = tarfile.TarInfo(f"./{name}")
            member.mode, member.size = file.mode, len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def hooks(overlay_tar: str) -> tuple[str, ...]:
    """Return mmdebstrap's customize hooks: the account, the files, and the removal of the build's own settings."""
    home = f"/home/{OPERATOR}"
    return (
        # The group of that name is Debian's own (base-passwd), so the account gets the group `users`.
        f'chroot "$1" useradd --create-home --shell /bin/bash --no-user-group --gid users --groups sudo,adm {OPERATOR}',
        # Made here, since a file of the overlay may not decide the permissions of the directory above it.
        f'install -d -m 0700 "$1{home}/.ssh"; mkdir -p "$1/boot/efi" "$1/etc/systemd/system.conf.d"',
        f"tar-in {overlay_tar} /",
        f'chroot "$1" chown -R {OPERATOR}:users {home}/.ssh',
        'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
        'rm -f "$1"/etc/resolv.conf "$1"/var/log/*.log',
    )
