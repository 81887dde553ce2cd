"""Run a program that believes in a kernel TPM: /dev/tpmrm0 is a pty bridged to swtpm, in a mount namespace of its own.

libtss2's device TCTI writes one command and reads one response; a raw pty gives it exactly that. systemd looks for
TPMs in /sys/class/tpmrm. Nothing outside the namespace is touched.
Usage: storage_kernel_tpm.py SOCKET SIGNATURE PROGRAM [ARGUMENT...]    (as root, through `unshare --mount`)
SIGNATURE is shown as /run/systemd/tpm2-pcr-signature.json when it exists.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import tty
from pathlib import Path


def bridge(master: int, server: socket.socket) -> None:
    while True:
        try:
            command = os.read(master, 4096)
        except OSError:
            return
        server.sendall(command)
        os.write(master, server.recv(4096))


def show(slave: str, signature: Path) -> None:
    """Mount a /dev, a /sys/class and a /run that hold only what is needed: a pty as tpmrm0, a TPM of that name."""
    text = signature.read_bytes() if signature.exists() else None
    stage = Path("/dev/shm")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(stage)], check=True)
    keep = stage / "pty"
    keep.touch()
    subprocess.run(["mount", "--bind", slave, str(keep)], check=True)
    (stage / "tpmrm/tpmrm0").mkdir(parents=True)
    subprocess.run(["mount", "--rbind", str(stage), "/sys/class"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/dev"], check=True)
    for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
        os.mknod(f"/dev/{name}", 0o20666, os.makedev(1, minor))
    device = Path("/dev/tpmrm0")
    device.touch()
    subprocess.run(["mount", "--bind", "/sys/class/pty", str(device)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    if text is not None:
        Path("/run/systemd").mkdir()
        Path("/run/systemd/tpm2-pcr-signature.json").write_bytes(text)


def main() -> int:
    master, slave = os.openpty()
    tty.setraw(slave)
    tty.setraw(master)
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        show(os.ttyname(slave), Path(sys.argv[2]))
        threading.Thread(target=bridge, args=(master, server), daemon=True).start()
        return subprocess.run(sys.argv[3:], check=False, timeout=60).returncode


if __name__ == "__main__":
    sys.exit(main())
