"""The machine as data, and the QEMU command that makes it. Pure: nothing here starts anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .tools import FIRMWARE

MANAGEMENT_NET = "192.168.222.0/24"
# Function 0 of slot N on the root bus is named enp0sN by udev: the address of a card is its name.
SLOT_SYSTEM, SLOT_DATA, SLOT_MANAGEMENT, SLOT_TRUNK, SLOT_SPARE = 4, 5, 6, 7, 8


@dataclass(frozen=True)
class Spec:
    """What is in the box. Sizes in MiB; `rtc` is an ISO 8601 time at which the clock starts, or None for now."""

    memory_mib: int = 2048
    cpus: int = 2
    data_mib: int = 4096
    tpm: bool = True
    banks: tuple[str, ...] = ("sha256", "sha384")
    rtc: str | None = None

    def data(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {**asdict(self), "banks": list(self.banks)}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Spec:
        """Return the spec that `data()` described."""
        return replace(cls(**data), banks=tuple(data["banks"]))


@dataclass(frozen=True)
class Places:
    """Files of one machine: disks, firmware variables and console in `directory`, sockets in `sockets`."""

    directory: Path
    sockets: Path

    @property
    def disk(self) -> Path:
        """The system disk (qcow2 overlay)."""
        return self.directory / "disk.qcow2"

    @property
    def data(self) -> Path:
        """The data disk (qcow2)."""
        return self.directory / "data.qcow2"

    @property
    def vars(self) -> Path:
        """The firmware's variables."""
        return self.directory / "vars.fd"

    @property
    def host_keys(self) -> Path:
        """The machine's public SSH keys, one a line."""
        return self.directory / "host_keys"

    @property
    def tpm(self) -> Path:
        """The TPM's state directory."""
        return self.directory / "tpm"

    @property
    def console(self) -> Path:
        """What the serial console said, all boots."""
        return self.directory / "console.log"

    @property
    def qmp(self) -> Path:
        """QEMU's control socket."""
        return self.sockets / "qmp"

    @property
    def tpm_socket(self) -> Path:
        """The TPM emulator's control socket."""
        return self.sockets / "tpm"

    @property
    def trunk_vm(self) -> Path:
        """Where the machine's end of the trunk receives frames."""
        return self.sockets / "trunk-vm"

    @property
    def trunk_peer(self) -> Path:
        """Where the far end of the trunk receives frames."""
        return self.sockets / "trunk-peer"


def _drive(name: str, file: Path, slot: int, extra: str) -> list[str]:
    # cache=unsafe: what this machine's page cache holds survives the end of QEMU, which is all a lab needs.
    return [
        "-drive", f"if=none,id={name},file={file},format=qcow2,cache=unsafe,discard=unmap,detect-zeroes=unmap",
        "-device", f"virtio-blk-pci,drive={name},addr={slot:#x}{extra}",
    ]  # fmt: skip


def _card(name: str, slot: int) -> list[str]:
    return ["-device", f"virtio-net-pci,netdev={name},mac=52:54:00:4b:4f:{slot:02x},addr={slot:#x},romfile="]


def qemu_argv(spec: Spec, places: Places, ssh_port: int, accelerator: str, *, incoming: bool = False) -> list[str]:
    """Return the QEMU command. `incoming` waits for a saved memory image instead of booting.

    Every PCI address is pinned and the system disk has boot index 0: a card that is left out must not move the others,
    and a moved disk would fall behind network boot in the firmware's own order.
    """
    fast = "kvm" if accelerator == "kvm" else "tcg,thread=multi,tb-size=512"
    argv = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "q35,smm=off,hpet=off", "-accel", fast, "-cpu", "host" if accelerator == "kvm" else "max",
        "-smp", str(spec.cpus), "-m", str(spec.memory_mib),
        "-rtc", f"base={spec.rtc or 'utc'}",
        "-chardev", f"file,id=console,path={places.console},append=on", "-serial", "chardev:console",
        "-qmp", f"unix:{places.qmp},server=on,wait=off",
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE / 'OVMF_CODE_4M.fd'}",
        "-drive", f"if=pflash,unit=1,format=raw,file={places.vars}",
        *_drive("system", places.disk, SLOT_SYSTEM, ",bootindex=0"),
        *_drive("data", places.data, SLOT_DATA, ",serial=kosmos-data"),
        "-netdev", f"user,id=management,net={MANAGEMENT_NET},ipv6=off,hostfwd=tcp:127.0.0.1:{ssh_port}-:22",
        *_card("management", SLOT_MANAGEMENT),
        "-netdev", f"dgram,id=trunk,local.type=unix,local.path={places.trunk_vm},"
        f"remote.type=unix,remote.path={places.trunk_peer}",
        *_card("trunk", SLOT_TRUNK),
        "-netdev", "hubport,id=spare,hubid=1", *_card("spare", SLOT_SPARE),
    ]  # fmt: skip
    if spec.tpm:
        argv += [
            "-chardev", f"socket,id=tpm,path={places.tpm_socket}",
            "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0",
        ]  # fmt: skip
    if incoming:
        argv += ["-incoming", "defer"]
    return argv
