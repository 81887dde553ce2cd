"""The TPM checks of host_preflight against real software TPMs: a good one, and one broken in each way."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Host
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes import measured
from ansible_collections.kosmos.appliance.plugins.module_utils.trust import eventlog, tpm
from check_bed import REPOSITORY, checks_of, evaluate, kosmos_variables
from swtpm_bed import manufacture, require_swtpm, running

sys.path.insert(0, str(REPOSITORY / "tests/unit/trust"))
from log_builder import event, header, ima, systemd
from tpm_commands import extend_pcr, lock_out

CHECKS = checks_of("host_preflight", kosmos_variables())
NAMES = [name for name in CHECKS if name.startswith(("host.tpm.", "host.eventlog."))]
FIRMWARE = header() + event(0, 8, b"firmware") + event(7, 0x80000001, b"SecureBoot") + event(4, 13, b"loader")
SYSTEMD, IMA = systemd(11, b"enter-initrd"), ima(10, b"boot_aggregate")


def put(host: Host, path: str, content: bytes) -> None:
    place = host.path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


@contextmanager
def booted(state: Path, folder: Path, banks: tuple[int, ...] = (0xB, 0xC)) -> Iterator[Host]:
    """A host with a real TPM that measured what its three logs say."""
    with running(state, folder) as transport:
        device = tpm.Tpm(transport)
        host = Host(root=folder / "root", now=time.time, memo={measured.TPM_KEY: device})
        put(host, measured.FIRMWARE_LOG, FIRMWARE)
        put(host, measured.SYSTEMD_LOG, SYSTEMD.encode())
        put(host, measured.IMA_LOG, IMA)
        names = [name for number, (name, _) in eventlog.ALGORITHMS.items() if number in banks]
        events = eventlog.parse_firmware_log(FIRMWARE) + eventlog.parse_systemd_log(SYSTEMD)
        for entry in events + eventlog.parse_ima_log(IMA):
            extend_pcr(device, entry.pcr, {name: entry.digests[name] for name in names})
        yield host


def look_again(host: Host, name: str) -> dict[str, object]:
    """A new batch on the same host."""
    return evaluate(CHECKS, Host(host.root, host.now, memo={measured.TPM_KEY: host.memo[measured.TPM_KEY]}), name)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    require_swtpm()
    folder = tmp_path_factory.mktemp("states")
    return {
        "good": manufacture(folder / "good"),
        "sha256 only": manufacture(folder / "s256", "sha256"),
        "sha384 only": manufacture(folder / "s384", "sha384"),
        "no certificate": manufacture(folder / "bare", ek_certificate=False),
    }


@pytest.fixture
def good(states: dict[str, Path], tmp_path: Path) -> Iterator[Host]:
    with booted(states["good"], tmp_path) as host:
        yield host


@pytest.mark.parametrize("name", NAMES)
def test_a_good_tpm_passes(good: Host, name: str) -> None:
    result = evaluate(CHECKS, good, name)
    assert result["pass"], result


def test_no_tpm_is_one_finding_with_its_cure(tmp_path: Path) -> None:
    host = Host(root=tmp_path, now=time.time)
    results = {name: evaluate(CHECKS, host, name) for name in NAMES}
    failed = [name for name, result in results.items() if not (result["pass"] or result["skipped"])]
    assert failed == ["host.tpm.present"]
    assert results["host.tpm.present"]["evidence"] == "no TPM: neither /dev/tpmrm0 nor /dev/tpm0 exists"
    assert "Enable the TPM" in results["host.tpm.present"]["cure"]


def test_a_lockout_is_found(good: Host) -> None:
    lock_out(good.memo[measured.TPM_KEY])
    result = look_again(good, "host.tpm.lockout")
    assert (result["pass"], result["found"]) == (False, True)


@pytest.mark.parametrize(
    ("left", "name", "silenced"),
    [
        (0xC, "host.tpm.bank_sha256", "host.eventlog.sha256"),
        (0xB, "host.tpm.bank_sha384", "host.eventlog.sha384"),
    ],
)
def test_a_bank_that_is_off_is_found(
    states: dict[str, Path], tmp_path: Path, left: int, name: str, silenced: str
) -> None:
    with booted(states["sha384 only" if left == 0xC else "sha256 only"], tmp_path, (left,)) as host:
        result = evaluate(CHECKS, host, name)
        assert not result["pass"], result
        assert evaluate(CHECKS, host, silenced)["skipped"]


def test_a_missing_certificate_is_found(states: dict[str, Path], tmp_path: Path) -> None:
    with booted(states["no certificate"], tmp_path) as host:
        result = evaluate(CHECKS, host, "host.tpm.ek_certificate")
        assert (result["pass"], result["found"]) == (False, [])


@pytest.mark.parametrize("bank", ["sha256", "sha384"])
@pytest.mark.parametrize(
    ("path", "content", "wrong"),
    [
        (measured.FIRMWARE_LOG, FIRMWARE + event(4, 13, b"hidden"), [4]),
        (measured.FIRMWARE_LOG, FIRMWARE.replace(b"\x07\0\0\0\x01\0\0\x80", b"\x06\0\0\0\x01\0\0\x80"), [6, 7]),
        (measured.SYSTEMD_LOG, b"", [11]),
        (measured.IMA_LOG, IMA + ima(10, b"more"), [10]),
    ],
)
def test_a_log_that_lies_is_found(good: Host, bank: str, path: str, content: bytes, wrong: list[int]) -> None:
    put(good, path, content)
    result = evaluate(CHECKS, good, f"host.eventlog.{bank}")
    assert (result["pass"], result["found"]) == (False, wrong)


@pytest.mark.parametrize("bank", ["sha256", "sha384"])
def test_a_broken_or_missing_log_is_found(good: Host, bank: str) -> None:
    put(good, measured.FIRMWARE_LOG, FIRMWARE[:-1])
    broken = look_again(good, f"host.eventlog.{bank}")
    assert not broken["pass"]
    assert "firmware log: event 3" in str(broken["evidence"])
    good.path(measured.FIRMWARE_LOG).unlink()
    absent = look_again(good, f"host.eventlog.{bank}")
    assert (absent["pass"], absent["found"]) == (False, None)


class Poorer:
    """A real TPM whose answers about itself are changed in flight: no software TPM lacks these."""

    def __init__(self, inner: tpm.Transport, old: bytes, new: bytes) -> None:
        self.inner, self.old, self.new = inner, old, new

    def exchange(self, command: bytes) -> bytes:
        return self.inner.exchange(command).replace(self.old, self.new)

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("host.tpm.curve_p256", b"\0\3\0\4", b"\0\2\0\4"),
        ("host.tpm.curve_p384", b"\0\3\0\4", b"\0\3\0\3"),
        ("host.tpm.version", b"2.0\0", b"1.2\0"),
    ],
)
def test_a_poorer_tpm_is_found(good: Host, name: str, old: bytes, new: bytes) -> None:
    device: tpm.Tpm = good.memo[measured.TPM_KEY]
    good.memo[measured.TPM_KEY] = tpm.Tpm(Poorer(device.transport, old, new))
    result = evaluate(CHECKS, good, name)
    assert not result["pass"], result
    assert not result["skipped"], result
