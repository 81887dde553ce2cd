"""Is hardware virtualisation of use here? Asked by really running a tiny guest, since /dev/kvm alone proves nothing."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .tools import Tools

KVM = Path("/dev/kvm")
_EXIT_PORT, _EXIT_VALUE = 0xF4, 0x2A
# A boot sector in 16-bit code: mov al, VALUE; out PORT, al; hlt. QEMU's isa-debug-exit then ends with VALUE * 2 + 1.
BOOT_SECTOR = bytes([0xB0, _EXIT_VALUE, 0xE6, _EXIT_PORT, 0xF4]).ljust(510, b"\0") + b"\x55\xaa"
#: Padded: from 512 bytes, or 64 KiB, SeaBIOS "could not read the boot disk" (QEMU 10.0); from 1 MiB it boots in 0.2 s.
TRIAL_DISK = BOOT_SECTOR.ljust(1 << 20, b"\0")
EXPECTED_EXIT = _EXIT_VALUE * 2 + 1


@dataclass(frozen=True)
class Accelerator:
    """`kvm` or `tcg`, and why."""

    name: str
    reason: str


def trial_argv(disk: Path) -> list[str]:
    """Return the QEMU command of the trial guest; firmware and boot sector run in several processor modes."""
    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "64",
        "-drive", f"if=none,id=d,format=raw,readonly=on,file={disk}",
        "-device", "virtio-blk-pci,drive=d,bootindex=0",
        "-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=1",
    ]  # fmt: skip


def judge(code: int | None, message: str) -> Accelerator:
    """Turn the trial's exit code (None: it did not end in time) and error text into a choice."""
    if code == EXPECTED_EXIT:
        return Accelerator("kvm", "a trial guest ran under /dev/kvm")
    if code is None:
        return Accelerator("tcg", "a trial guest under /dev/kvm did not answer in 10 seconds")
    last = (message.strip().splitlines() or [f"exit code {code}"])[-1]
    return Accelerator("tcg", f"a trial guest under /dev/kvm failed: {last}")


def choose(tools: Tools, device: Path = KVM) -> Accelerator:
    """Return KVM when a trial guest really runs under it, else software emulation, with the reason."""
    if not device.exists():
        return Accelerator("tcg", f"there is no {device}")
    if not os.access(device, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"{device} may not be opened by this user (group kvm)")
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError as error:
        return Accelerator("tcg", f"{device} cannot be opened: {error.strerror}")
    with tempfile.TemporaryDirectory(prefix="kosmos-kvm-") as scratch:
        disk = Path(scratch) / "trial.img"
        disk.write_bytes(TRIAL_DISK)
        try:
            done = subprocess.run(
                tools.argv(*trial_argv(disk)), capture_output=True, text=True, check=False, timeout=10
            )
        except subprocess.TimeoutExpired:
            return judge(None, "")
    return judge(done.returncode, done.stderr)
