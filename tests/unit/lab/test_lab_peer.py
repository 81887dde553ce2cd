"""The trunk's other end: frames between a datagram socket and one TAP per VLAN."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

from kosmos_installer.lab.frames import untag
from kosmos_installer.lab.peer import forward, open_trunk

BURST = 200


def test_a_burst_reaches_a_machine_that_is_slow_to_read(tmp_path: Path) -> None:
    """A Unix datagram socket queues few datagrams (net.unix.max_dgram_qlen, often 10): a burst waits there."""
    with (
        open_trunk(str(tmp_path / "peer")) as trunk,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as machine,
    ):
        machine.bind(str(tmp_path / "machine"))
        machine.settimeout(5)
        tap, world = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        forwarding = (trunk, str(tmp_path / "machine"), {100: tap.detach()})
        threading.Thread(target=forward, args=forwarding, daemon=True).start()

        def flood() -> None:
            for number in range(BURST):
                world.send(bytes(12) + b"\x08\x00" + number.to_bytes(2, "big"))

        threading.Thread(target=flood, daemon=True).start()
        seen = []
        for _ in range(BURST):
            time.sleep(0.001)
            vlan, frame = untag(machine.recv(2048))
            assert vlan == 100
            seen.append(int.from_bytes(frame[-2:], "big"))
        assert seen == list(range(BURST))


def test_a_machine_that_is_off_stops_nobody(tmp_path: Path) -> None:
    """Frames to it are lost, as on a wire; those of the other direction still arrive."""
    with open_trunk(str(tmp_path / "peer")) as trunk, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as machine:
        tap, world = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        world.settimeout(5)
        forwarding = (trunk, str(tmp_path / "machine"), {100: tap.detach()})
        threading.Thread(target=forward, args=forwarding, daemon=True).start()
        world.send(bytes(14))
        machine.sendto(bytes(12) + b"\x81\x00\x00\x64\x08\x00hello", str(tmp_path / "peer"))
        assert world.recv(2048) == bytes(12) + b"\x08\x00hello"
