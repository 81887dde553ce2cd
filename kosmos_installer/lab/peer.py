"""The second host: the far end of the trunk, one network namespace per VLAN.

QEMU sends the trunk's frames to a socket. This process removes the 802.1Q tag and hands each frame to a TAP device that
lives in the namespace of its VLAN, and the other way round. So neither the kernel's 8021q nor a bridge is needed, and
nothing appears in this machine's own network. As an ordinary user, each namespace comes with its own user namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .frames import tag, untag

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_PR_SET_PDEATHSIG = 1
_LARGEST_FRAME = 65536
#: How long a frame waits for room at the machine. Its socket queues few datagrams (net.unix.max_dgram_qlen, often 10):
#: a burst must not vanish there. And a machine that stands still must not hold up what comes from it.
_PATIENCE_SECONDS = 0.05


@dataclass(frozen=True)
class Zone:
    """One VLAN as the second host sees it: its own address (with prefix length) and the appliance's, for v4 and v6."""

    vlan: int
    address: str
    gateway: str
    address6: str
    gateway6: str

    @classmethod
    def of(cls, vlan: int, third: int) -> Zone:
        """Return the seed's addressing: 10.0.<third>.2/24, and a unique local prefix (RFC 4193) that spells kosmo."""
        prefix = f"fd6b:6f73:6d6f:{vlan}"
        return cls(vlan, f"10.0.{third}.2/24", f"10.0.{third}.1", f"{prefix}::2/64", f"{prefix}::1")

    @property
    def device(self) -> str:
        """The interface's name inside the namespace."""
        return f"zone{self.vlan}"


ZONES = (Zone.of(100, 1), Zone.of(200, 2))


def address_commands(zone: Zone) -> list[list[str]]:
    """Return the ip(8) commands that give the namespace of `zone` its addresses and routes."""
    device = zone.device
    return [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "set", device, "address", f"52:54:00:4b:50:{zone.vlan & 0xFF:02x}", "up"],
        ["ip", "address", "add", zone.address, "dev", device],
        ["ip", "-6", "address", "add", zone.address6, "dev", device, "nodad"],
        ["ip", "route", "add", "default", "via", zone.gateway],
        ["ip", "-6", "route", "add", "default", "via", zone.gateway6],
    ]


def _own_namespace(uid: int, gid: int) -> None:
    """Move this process into a new network namespace (and, without root, into a user namespace that permits it)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET | (_CLONE_NEWUSER if uid else 0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot make a network namespace: {os.strerror(code)}")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _open_tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent, which may already have happened."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _hold(zone: Zone, link: socket.socket, parent: int) -> None:
    """Child process: make the namespace and its TAP, hand the TAP to the parent, stay to keep the namespace."""
    _die_with(parent)
    _own_namespace(os.geteuid(), os.getegid())
    descriptor = _open_tap(zone.device)
    for command in address_commands(zone):
        subprocess.run(command, check=True)
    socket.send_fds(link, [b"tap"], [descriptor])
    while True:
        signal.pause()


def start_zone(zone: Zone) -> tuple[int, int]:
    """Start the namespace of one zone; return the pid that holds it and the TAP's file descriptor."""
    near, far = socket.socketpair()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        near.close()
        try:
            _hold(zone, far, parent)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"zone {zone.vlan}: {error}\n")
            sys.stderr.flush()
        os._exit(1)
    far.close()
    with near:
        _, descriptors, _, _ = socket.recv_fds(near, 16, 1)
    if not descriptors:
        raise SystemExit(f"the namespace of VLAN {zone.vlan} could not be made")
    return child, descriptors[0]


def open_trunk(path: str) -> socket.socket:
    """Return our end of the trunk, a Unix datagram socket at `path`."""
    trunk = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    trunk.settimeout(_PATIENCE_SECONDS)
    trunk.bind(path)
    return trunk


def forward(trunk: socket.socket, machine: str, taps: dict[int, int]) -> None:
    """Carry frames between the trunk and the TAP of each VLAN for ever; frames of other VLANs are dropped."""
    with selectors.DefaultSelector() as selector:
        selector.register(trunk, selectors.EVENT_READ, None)
        for vlan, descriptor in taps.items():
            selector.register(descriptor, selectors.EVENT_READ, vlan)
        while True:
            for key, _ in selector.select():
                # A full queue or a machine that is off loses the frame, as on a wire.
                with contextlib.suppress(OSError):
                    if key.data is None:
                        found, frame = untag(trunk.recv(_LARGEST_FRAME))
                        if found is not None and found in taps:
                            os.write(taps[found], frame)
                    else:
                        trunk.sendto(tag(os.read(key.fd, _LARGEST_FRAME), key.data), machine)


def main(argv: list[str]) -> None:
    """`python -m kosmos_installer.lab.peer MACHINE_SOCKET OWN_SOCKET READY_FILE`; READY_FILE gets {vlan: pid}."""
    machine, own, ready = argv
    holders: dict[str, int] = {}
    taps: dict[int, int] = {}
    for zone in ZONES:
        holders[str(zone.vlan)], taps[zone.vlan] = start_zone(zone)
    trunk = open_trunk(own)
    partial = Path(f"{ready}.partial")
    partial.write_text(json.dumps(holders))
    partial.rename(ready)
    forward(trunk, machine, taps)


if __name__ == "__main__":
    main(sys.argv[1:])
