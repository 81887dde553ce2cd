"""The boot log parsers and the replay, against hand-made logs, broken logs and noise."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builder import event, extend, header, ima, systemd

from kosmos_trust import eventlog
from kosmos_trust.eventlog import EventLogError

RECORDED = Path(__file__).parent / "data/lab"
LOG = (
    header() + event(0, 8, b"firmware 1") + event(7, 0x80000001, b"db") + event(7, 4, b"\0\0\0\0") + event(4, 13, b"x")
)


def test_replay_follows_the_extend_rule_in_both_banks() -> None:
    events = eventlog.parse_firmware_log(LOG)
    assert [entry.pcr for entry in events] == [0, 7, 7, 4]
    for bank, size in (("sha256", 32), ("sha384", 48)):
        values = eventlog.replay(events, bank)
        assert values[0] == extend(bank, bytes(size), b"firmware 1")
        assert values[7] == extend(bank, bytes(size), b"db", b"\0\0\0\0")
        assert values[1] == bytes(size)
        assert sorted(values) == list(range(24))


def test_dynamic_pcrs_start_as_all_ones() -> None:
    values = eventlog.replay([], "sha256")
    assert {pcr for pcr, value in values.items() if value == b"\xff" * 32} == set(range(17, 23))


def test_no_action_extends_nothing_and_locality_sets_the_start_of_pcr_0() -> None:
    log = header() + event(0, 3, b"StartupLocality\0\x03") + event(0, 8, b"crtm") + event(0xFFFFFFFF, 3, b"note")
    values = eventlog.replay(eventlog.parse_firmware_log(log), "sha256")
    assert values[0] == extend("sha256", bytes(31) + b"\x03", b"crtm")


def test_locality_after_an_extend_is_refused() -> None:
    log = header() + event(0, 8, b"crtm") + event(0, 3, b"StartupLocality\0\x03")
    with pytest.raises(EventLogError, match="after PCR 0 was extended"):
        eventlog.replay(eventlog.parse_firmware_log(log), "sha256")


def test_a_bank_without_digests_is_named() -> None:
    events = eventlog.parse_firmware_log(header((0xB,)) + event(2, 8, b"a", banks=(0xB,)))
    with pytest.raises(EventLogError, match=r"event 1 \(PCR 2\) has no sha384 digest"):
        eventlog.replay(events, "sha384")
    with pytest.raises(EventLogError, match="cannot be replayed"):
        eventlog.replay(events, "md5")


def test_systemd_and_ima_logs_extend_their_pcrs() -> None:
    events = eventlog.parse_systemd_log(systemd(11, b"enter-initrd") + systemd(15, b"machine-id:x"))
    events += eventlog.parse_ima_log(ima(10, b"template data") + ima(10, b"raced", violation=True))
    values = eventlog.replay(events, "sha384")
    assert values[11] == extend("sha384", bytes(48), b"enter-initrd")
    assert values[15] == extend("sha384", bytes(48), b"machine-id:x")
    once = eventlog.replay(eventlog.parse_ima_log(ima(10, b"template data")), "sha384")[10]
    assert once == extend("sha384", bytes(48), b"template data")
    assert values[10] not in (once, bytes(48))


def test_legacy_ima_template_hashes_the_padded_name() -> None:
    digest, name = b"d" * 20, b"/bin/true"
    record = struct.pack("<I20sI3s20sI", 10, b"h" * 20, 3, b"ima", digest, len(name)) + name
    assert eventlog.replay(eventlog.parse_ima_log(record), "sha256")[10] == extend(
        "sha256", bytes(32), digest + name.ljust(256, b"\0")
    )


def test_records_that_measure_into_nv_indices_are_left_out() -> None:
    assert eventlog.parse_systemd_log('\x1e{"nv_index_name": "hardware", "digests": []}\n') == []


def test_mismatches_names_wrong_and_missing_pcrs() -> None:
    assert eventlog.mismatches({0: b"a", 1: b"b", 2: b"c"}, {0: b"a", 1: b"x", 3: b"c"}) == [1, 2, 3]


@pytest.mark.parametrize("cut", range(1, len(LOG)))
def test_a_truncated_log_is_refused_or_is_a_shorter_log(cut: int) -> None:
    boundaries, position = set(), len(header())
    for part in (event(0, 8, b"firmware 1"), event(7, 0x80000001, b"db"), event(7, 4, b"\0\0\0\0")):
        boundaries.add(position)
        position += len(part)
    boundaries.add(position)
    if cut in boundaries:
        assert len(eventlog.parse_firmware_log(LOG[:cut])) < 4
    else:
        with pytest.raises(EventLogError):
            eventlog.parse_firmware_log(LOG[:cut])


@pytest.mark.parametrize("bank", ["sha256", "sha384"])
def test_every_flipped_bit_is_refused_or_changes_nothing_but_descriptions(bank: str) -> None:
    honest = eventlog.replay(eventlog.parse_firmware_log(LOG), bank)
    silent = 0
    for position in range(len(header()), len(LOG)):
        changed = bytearray(LOG)
        changed[position] ^= 1
        try:
            values = eventlog.replay(eventlog.parse_firmware_log(bytes(changed)), bank)
        except EventLogError:
            continue
        silent += values == honest
    # Unseen by one bank: event types, event data, and the other bank's digests. Every digest byte of this bank is seen.
    other = 48 if bank == "sha256" else 32
    data = len(b"firmware 1") + len(b"db") + 4 + 1
    types = 4 * 4
    assert silent <= data + types + 4 * other


@pytest.mark.parametrize(
    ("log", "what"),
    [
        (b"", "announced, 0 left"),
        (header()[:8] + bytes(24), "not crypto-agile"),
        (struct.pack("<II20sI", 0, 3, b"", 2**31), "announced, more than"),
        (header() + event(24, 8, b"a"), "PCR 24 does not exist"),
        (header() + event(0xFFFFFFFF, 8, b"a"), "does not exist"),
        (header() + struct.pack("<III", 0, 8, 3), "3 digests, the header announced 2"),
        (header() + struct.pack("<IIIH", 0, 8, 1, 0x12), "not in the header"),
        (header() + event(0, 8, b"a", banks=(0xB, 0xB)), "two digests"),
        (header() + event(0, 8, b"a")[:-5] + struct.pack("<I", 2**32 - 1), "more than"),
        (header((0xB,)).replace(struct.pack("<HH", 0xB, 32), struct.pack("<HH", 0xB, 20)), "digests of 20 bytes"),
    ],
)
def test_each_fault_of_a_firmware_log_is_named(log: bytes, what: str) -> None:
    with pytest.raises(EventLogError, match=what):
        eventlog.parse_firmware_log(log)


def test_a_log_beyond_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_LOG_BYTES", 100)
    monkeypatch.setattr(eventlog, "MAX_EVENTS", 2)
    with pytest.raises(EventLogError, match="more than 100"):
        eventlog.parse_firmware_log(LOG)
    with pytest.raises(EventLogError, match="more than 100"):
        eventlog.parse_systemd_log(systemd(11, b"x"))
    monkeypatch.setattr(eventlog, "MAX_LOG_BYTES", 10_000)
    with pytest.raises(EventLogError, match="more than 2 events"):
        eventlog.parse_firmware_log(LOG)


@pytest.mark.parametrize(
    "text",
    [
        "\x1e{",
        "\x1e[]",
        '\x1e{"pcr": 24, "digests": []}',
        '\x1e{"pcr": true, "digests": []}',
        '\x1e{"pcr": 11}',
        '\x1e{"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": "00"}]}',
        '\x1e{"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": "zz"}]}',
        '\x1e{"pcr": 11, "digests": 5}',
        "\x1e" + "[" * 100_000,
    ],
)
def test_each_fault_of_a_systemd_log_is_named(text: str) -> None:
    with pytest.raises(EventLogError, match="systemd log"):
        eventlog.parse_systemd_log(text)


@pytest.mark.parametrize("data", [ima(24, b"x"), ima(10, b"x")[:-1], ima(10, b"x", name=b"n" * 65)])
def test_each_fault_of_an_ima_log_is_named(data: bytes) -> None:
    with pytest.raises(EventLogError, match="IMA log"):
        eventlog.parse_ima_log(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, len(LOG)))
def test_noise_never_raises_anything_else(noise: bytes, keep: int) -> None:
    for data in (noise, LOG[:keep] + noise):
        for parse in (eventlog.parse_firmware_log, eventlog.parse_ima_log):
            try:
                eventlog.replay(parse(data), "sha256")
            except EventLogError:
                continue


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str))
def test_noise_in_the_systemd_log_never_raises_anything_else(text: str) -> None:
    try:
        eventlog.parse_systemd_log("\x1e" + text)
    except EventLogError:
        return


@pytest.mark.parametrize("bank", ["sha256", "sha384"])
def test_the_logs_of_a_real_boot_explain_its_pcrs(bank: str) -> None:
    """Recorded in the lab: OVMF, shim-less GRUB, Debian's kernel with IMA; PCR values read from sysfs."""
    values = {
        pcr: bytes.fromhex(text) for pcr, text in enumerate(json.loads((RECORDED / "pcrs.json").read_text())[bank])
    }
    firmware = eventlog.parse_firmware_log((RECORDED / "binary_bios_measurements").read_bytes())
    ima_events = eventlog.parse_ima_log((RECORDED / "binary_runtime_measurements").read_bytes(), [bank])
    assert len(firmware) > 50
    assert eventlog.mismatches(eventlog.replay([*firmware, *ima_events], bank), values) == []
    assert eventlog.mismatches(eventlog.replay(firmware, bank), values) == [10]
    for number, entry in enumerate(firmware):
        if entry.type != eventlog.EV_NO_ACTION:
            rest = [*firmware[:number], *firmware[number + 1 :], *ima_events]
            assert eventlog.mismatches(eventlog.replay(rest, bank), values) == [entry.pcr]
