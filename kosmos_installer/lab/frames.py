"""IEEE 802.1Q tags on Ethernet frames, as bytes in and bytes out."""

from __future__ import annotations

TPID = b"\x81\x00"
_ADDRESSES = 12  # destination and source, six octets each


def tag(frame: bytes, vlan: int) -> bytes:
    """Insert an 802.1Q tag (priority 0) for `vlan` behind the addresses."""
    return frame[:_ADDRESSES] + TPID + vlan.to_bytes(2, "big") + frame[_ADDRESSES:]


def untag(frame: bytes) -> tuple[int | None, bytes]:
    """Return (vlan, frame without its tag); vlan is None for an untagged or priority-tagged (vlan 0) frame."""
    if len(frame) < _ADDRESSES + 6 or frame[_ADDRESSES : _ADDRESSES + 2] != TPID:
        return None, frame
    vlan = int.from_bytes(frame[_ADDRESSES + 2 : _ADDRESSES + 4], "big") & 0x0FFF
    return vlan or None, frame[:_ADDRESSES] + frame[_ADDRESSES + 4 :]
