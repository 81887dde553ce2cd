"""802.1Q tags against bytes written by hand from the standard (IEEE 802.1Q-2022, 9.6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos_installer.lab.frames import tag, untag

ADDRESSES = bytes.fromhex("ffffffffffff 5254004b4f07")
ARP = bytes.fromhex("0806") + bytes(46)


def test_the_tag_stands_between_addresses_and_type() -> None:
    assert tag(ADDRESSES + ARP, 100) == ADDRESSES + bytes.fromhex("8100 0064") + ARP


@pytest.mark.parametrize(
    ("control", "vlan"),
    [("0064", 100), ("00c8", 200), ("e064", 100), ("1064", 100), ("0000", None), ("e000", None), ("0fff", 4095)],
    ids=["100", "200", "priority 7", "drop eligible", "priority tag", "priority tag 7", "highest"],
)
def test_the_vlan_is_the_low_twelve_bits(control: str, vlan: int | None) -> None:
    assert untag(ADDRESSES + bytes.fromhex("8100" + control) + ARP) == (vlan, ADDRESSES + ARP)


@pytest.mark.parametrize("frame", [b"", ADDRESSES, ADDRESSES + ARP, ADDRESSES + bytes.fromhex("8100 00")])
def test_what_carries_no_whole_tag_passes_unchanged(frame: bytes) -> None:
    assert untag(frame) == (None, frame)


@given(st.binary(min_size=14, max_size=1514), st.integers(min_value=1, max_value=4094))
def test_untag_undoes_tag(frame: bytes, vlan: int) -> None:
    assert untag(tag(frame, vlan)) == (vlan, frame)
