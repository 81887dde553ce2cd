"""A folder that looks like a good host to the checks of host_preflight that read files, and ways to spoil it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

RELEASE = "6.12.41+deb13-amd64"
FLAGS = "fpu cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 aes rdrand"
CONFIG = "CONFIG_SECCOMP_FILTER=y\nCONFIG_USER_NS=y\nCONFIG_BPF_SYSCALL=y\n"
STATUS = "Package: ssh\nStatus: install ok installed\nVersion: 1\n\nPackage: old\nStatus: deinstall ok config-files\n"
TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
EFIVAR = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
FILES: dict[str, str] = {
    EFIVAR: "\6\0\0\0\1",
    "proc/self/mounts": "/dev/vda2 / ext4 rw,relatime 0 0\n/dev/vda1 /boot/efi vfat rw 0 0\n",
    "run/systemd/system/.keep": "",
    "proc/sys/kernel/arch": "x86_64\n",
    "proc/sys/kernel/osrelease": f"{RELEASE}\n",
    "etc/os-release": 'ID=debian\nVERSION_ID="13"\n',
    "proc/cpuinfo": f"processor\t: 0\nflags\t\t: {FLAGS}\n\nprocessor\t: 1\nflags\t\t: {FLAGS}\n",
    "proc/meminfo": "MemTotal:       32700000 kB\n",
    "sys/module/apparmor/parameters/enabled": "Y\n",
    "sys/kernel/security/lsm": "lockdown,capability,apparmor,bpf",
    "sys/kernel/btf/vmlinux": "BTF",
    f"boot/config-{RELEASE}": CONFIG,
    f"lib/modules/{RELEASE}/modules.dep": (
        "kernel/net/netfilter/nf_tables.ko.xz: x\nkernel/net/8021q/8021q.ko.xz:\nkernel/fs/overlayfs/overlay.ko.xz:\n"
    ),
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids\n",
    "sys/class/net/enp0s6/operstate": "up\n",
    "sys/class/net/enp0s7/operstate": "down\n",
    # port 22 held by sshd, inode 77
    "proc/net/tcp": f"{TCP}   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1\n",
    "proc/net/udp": TCP,
    "proc/77/comm": "sshd\n",
    "proc/99/comm": "intruder\n",
    "proc/locks": "",
    "var/lib/dpkg/status": STATUS,
    "var/lib/dpkg/lock": "",
    "var/lib/dpkg/lock-frontend": "",
    "var/lib/dpkg/updates/.keep": "",
    "etc/apt/sources.list": "deb http://127.0.0.1/debian trixie main\n",
    "usr/bin/true": "",
    "var/log/syslog": "",
}


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def build(root: Path) -> Path:
    for name, text in FILES.items():
        write(root, name, text)
    for pid, inode in ((77, 77), (99, 99)):
        (root / f"proc/{pid}/fd").mkdir()
        (root / f"proc/{pid}/fd/3").symlink_to(f"socket:[{inode}]")
    return root


Break = Callable[[Path], object]


def put(name: str, text: str) -> Break:
    return lambda root: write(root, name, text)


def swap(name: str, old: str, new: str) -> Break:
    assert old in FILES[name], (name, old)
    return lambda root: write(root, name, FILES[name].replace(old, new))


def gone(name: str) -> Break:
    def remove(root: Path) -> None:
        path = root / name
        if not path.is_dir():
            path.unlink()
            return
        for child in sorted(path.rglob("*"), reverse=True):
            child.rmdir() if stat.S_ISDIR(child.lstat().st_mode) else child.unlink()
        path.rmdir()

    return remove


def listen(table: str, number: int) -> Break:
    """The intruder (pid 99) listens on a port."""
    state = "0A" if table == "tcp" else "07"
    row = f"   1: 00000000:{number:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 99 1\n"
    return lambda root: write(root, f"proc/net/{table}", TCP + row)


def hold_lock(root: Path) -> None:
    status = (root / "var/lib/dpkg/lock").stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    write(root, "proc/locks", f"1: POSIX  ADVISORY  WRITE 99 {device} 0 EOF\n")


def age(root: Path, seconds: float) -> None:
    """Give every file and folder one time."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            os.utime(path, (seconds, seconds))
