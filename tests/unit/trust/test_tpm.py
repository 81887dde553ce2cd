"""The TPM command layer, against a real software TPM, a real character device, and lying transports."""

from __future__ import annotations

import os
import pty
import struct
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builder import event, header
from swtpm_bed import SocketTransport, manufacture, require_swtpm, running
from tpm_commands import extend_pcr, lock_out

from kosmos_trust import eventlog, tpm

GOOD = struct.pack(">HII", 0x8001, 10, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_swtpm()
    return manufacture(tmp_path_factory.mktemp("tpm") / "both")


@pytest.fixture
def transport(made: Path, tmp_path: Path) -> Iterator[SocketTransport]:
    with running(made, tmp_path) as found:
        yield found


def test_a_manufactured_tpm_tells_all_about_itself(transport: SocketTransport) -> None:
    device = tpm.Tpm(transport)
    facts = device.properties()
    assert facts[tpm.PT_FAMILY].to_bytes(4, "big") == b"2.0\0"
    assert facts[tpm.PT_MANUFACTURER].to_bytes(4, "big") == b"IBM\0"
    assert facts[tpm.PT_LOCKOUT_COUNTER] == 0
    assert not facts[tpm.PT_PERMANENT] & tpm.PERMANENT_IN_LOCKOUT
    banks = {bank: pcrs for bank, pcrs in device.banks().items() if pcrs}
    assert banks == {"sha256": list(range(24)), "sha384": list(range(24))}
    assert {"P-256", "P-384"} <= set(device.curves())
    assert device.ek_certificates() == ["RSA-2048 (L-1)", "P-384 (H-3)"]
    assert {0x01C00002, 0x01C00016} <= set(device.nv_indices())
    certificate = device.nv_public(0x01C00002)
    assert certificate is not None
    assert certificate.written
    assert 500 < certificate.size < 3000
    assert device.nv_public(0x01C0000A) is None


def test_pcr_values_follow_the_replay_of_what_was_extended(transport: SocketTransport) -> None:
    log = header() + b"".join(event(pcr, 8, f"event {pcr}".encode()) for pcr in (0, 4, 7, 7, 10, 16, 23))
    events = eventlog.parse_firmware_log(log)
    device = tpm.Tpm(transport)
    for entry in events:
        extend_pcr(device, entry.pcr, entry.digests)
    for bank in ("sha256", "sha384"):
        actual = device.pcr_values(bank)
        assert sorted(actual) == list(range(24))
        assert eventlog.mismatches(eventlog.replay(events, bank), actual) == []
        assert eventlog.mismatches(eventlog.replay(events[1:], bank), actual) == [0]


def test_a_bank_that_is_off_is_refused_by_name(tmp_path: Path) -> None:
    require_swtpm()
    with running(manufacture(tmp_path / "one", "sha256", ek_certificate=False), tmp_path / "run") as transport:
        device = tpm.Tpm(transport)
        assert [bank for bank, pcrs in device.banks().items() if pcrs] == ["sha256"]
        assert device.ek_certificates() == []
        with pytest.raises(tpm.TpmError, match="sha384 does not hold PCR 0"):
            device.pcr_values("sha384")


def test_a_lockout_is_seen(transport: SocketTransport) -> None:
    device = tpm.Tpm(transport)
    lock_out(device)
    facts = device.properties()
    assert facts[tpm.PT_PERMANENT] & tpm.PERMANENT_IN_LOCKOUT
    assert facts[tpm.PT_LOCKOUT_COUNTER] >= facts[tpm.PT_MAX_AUTH_FAIL] > 0


def test_the_tpm_refuses_a_command_with_its_code(transport: SocketTransport) -> None:
    with pytest.raises(tpm.TpmError, match="0x143") as caught:  # TPM_RC_COMMAND_CODE
        tpm.Tpm(transport).command(0x1FF, b"")
    assert caught.value.code == 0x143


class Canned:
    """A transport that answers with given bytes, one after the other, the last for ever."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.commands: list[bytes] = []

    def exchange(self, command: bytes) -> bytes:
        self.commands.append(command)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        self.answers.clear()


def test_a_busy_tpm_is_asked_again_and_then_given_up() -> None:
    busy, pauses = struct.pack(">HII", 0x8001, 10, 0x922), []
    assert tpm.Tpm(Canned(busy, busy, GOOD), pauses.append).command(0x17A, b"") == b""
    assert pauses == [tpm.RETRY_PAUSE_SECONDS] * 2
    with pytest.raises(tpm.TpmError, match="0x922"):
        tpm.Tpm(Canned(busy), pauses.append).command(0x17A, b"")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_a_lying_tpm_never_raises_anything_else(body: bytes) -> None:
    for answer in (body, struct.pack(">HII", 0x8001, 10 + len(body), 0) + body):
        device = tpm.Tpm(Canned(answer), lambda _: None)
        asks = (device.properties, device.banks, device.curves, device.nv_indices, device.ek_certificates)
        for ask in (*asks, lambda device=device: device.pcr_values("sha256")):
            try:
                ask()
            except tpm.TpmError:
                continue


def test_an_endless_list_ends() -> None:
    """A TPM that always says "more" with the same entry must not hold us."""
    body = struct.pack(">BIIII", 1, tpm.CAP_PROPERTIES, 1, 0x100, 7)
    answer = struct.pack(">HII", 0x8001, 10 + len(body), 0) + body
    assert tpm.Tpm(Canned(answer)).properties() == {0x100: 7}


def _terminal() -> tuple[int, Path]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    path = Path(os.ttyname(slave))
    return master, path


def test_the_device_transport_carries_a_command_and_its_answer() -> None:
    master, path = _terminal()
    answered = threading.Thread(target=lambda: os.write(master, os.read(master, 100)[:2] + GOOD[2:]))
    answered.start()
    with tpm.Tpm(tpm.DeviceTransport(path, 10)) as device:
        assert device.command(0x144, b"\0\0") == b""
    answered.join(timeout=10)


def test_a_dead_device_costs_a_timeout_and_says_so() -> None:
    _, path = _terminal()
    with (
        tpm.Tpm(tpm.DeviceTransport(path, 0.2)) as device,
        pytest.raises(tpm.TpmError, match=r"no answer within 0\.2 s"),
    ):
        device.banks()


def test_no_device_is_told_apart_from_a_device_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(tpm.TpmAbsentError, match="neither /dev/tpmrm0 nor /dev/tpm0"):
        tpm.open_device(tmp_path)
    with pytest.raises(tpm.TpmError, match="No such file"):
        tpm.DeviceTransport(tmp_path / "gone")
