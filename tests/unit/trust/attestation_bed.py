"""A machine to attest: a real software TPM with a boot measured into it, quoted by the real tpm2-tools."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from log_builder import event, header, ima, systemd
from swtpm_bed import SocketTransport, powered, require_swtpm
from tpm_commands import extend_pcr

from kosmos_trust.attestation import reference
from kosmos_trust.attestation.chain import Anchors
from kosmos_trust.attestation.endorsement import Endorsement
from kosmos_trust.attestation.enrolment import Claim, admit, challenge
from kosmos_trust.attestation.evidence import Evidence
from kosmos_trust.attestation.logs import MeasuredBoot, parse_logs
from kosmos_trust.attestation.policy import BANKS, Policy, Profile
from kosmos_trust.attestation.state import KnownHost
from kosmos_trust.eventlog import EV_NO_ACTION, FIRMWARE_LOG, IMA_LOG, SYSTEMD_LOG
from kosmos_trust.tpm import Tpm
from kosmos_trust.tpm_evidence import collect
from kosmos_trust.tpm_tools import TpmTools

AT = datetime(2030, 1, 1, tzinfo=UTC)
NONCE = bytes(range(32))
HOST = "box-1"
PCRS = (0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 14, 15)
FIRMWARE_PCRS = (0, 2, 3, 7)
GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
RECORDED = Path(__file__).parent / "data/lab"
CALLING = b"Calling EFI Application from Boot Option"


def require_tools() -> None:
    require_swtpm()
    if shutil.which("tpm2_quote") is None:
        pytest.skip("tpm2_quote is not installed (package tpm2-tools)")


def variable(name: str, content: bytes) -> bytes:
    return GLOBAL + struct.pack("<QQ", len(name), len(content)) + name.encode("utf-16-le") + content


def image_event(path: str) -> bytes:
    node = path.encode("utf-16-le") + b"\0\0"
    device_path = struct.pack("<BBH", 4, 4, 4 + len(node)) + node + bytes.fromhex("7fff0400")
    return struct.pack("<QQQQ", 0, 0, 0, len(device_path)) + device_path


@dataclass(frozen=True)
class Logs:
    firmware: bytes
    systemd: bytes = b""
    ima: bytes = b""

    def boot(self) -> MeasuredBoot:
        return parse_logs(self.firmware, self.systemd, self.ima, BANKS)


def uki_boot(
    *,
    secure_boot: bytes = b"\x01",
    version: bytes = b"firmware 1.0",
    kernel: bytes = b"kernel PE",
    command_line: bytes = b"",
    phases: tuple[bytes, ...] = (b"enter-initrd", b"leave-initrd", b"sysinit", b"ready"),
) -> Logs:
    """The logs of a boot by systemd-boot and a unified kernel image, in the order in which OVMF measures."""
    log = header() + event(0, 8, version) + event(0, 0x80000008, b"volume", measured=b"firmware volume")
    log += event(7, 0x80000001, variable("SecureBoot", secure_boot)) + event(7, 0x80000001, variable("PK", b"key"))
    log += b"".join(event(pcr, 4, bytes(4)) for pcr in (7, 0, 1, 2, 3)) + event(4, 0x80000007, CALLING)
    log += event(4, 4, bytes(4))
    for path, program in (("\\EFI\\BOOT\\BOOTX64.EFI", b"systemd-boot PE"), ("\\EFI\\Linux\\kosmos.efi", b"UKI PE")):
        log += event(4, 0x80000003, image_event(path), measured=program)
    for section in (b".linux", b".initrd", b".cmdline"):
        log += event(11, 13, section + b"\0") + event(11, 13, section + b" content", measured=b"content of " + section)
    if command_line:
        log += event(12, 13, command_line)
    log += event(4, 0x80000003, image_event("\\kernel"), measured=kernel)
    told = "".join(systemd(11, phase) for phase in phases) + systemd(15, b"machine-id:0123")
    return Logs(log, told.encode(), ima(10, b"\x06\0\0\0sha256\x0f\0\0\0boot_aggregate\0"))


def recorded_boot() -> Logs:
    """Recorded in the lab: OVMF without Secure Boot, shim, GRUB, Debian's kernel."""
    firmware = (RECORDED / "binary_bios_measurements").read_bytes()
    return Logs(firmware, b"", (RECORDED / "binary_runtime_measurements").read_bytes())


GOOD = uki_boot()


@dataclass(frozen=True)
class Machine:
    """A powered machine that has booted: its tools, and the root folder that shows its logs."""

    tools: TpmTools
    socket: Path
    root: Path

    def measure(self, logs: Logs) -> None:
        transport = SocketTransport(self.socket)
        for entry in logs.boot().events:
            if entry.event.type != EV_NO_ACTION:
                extend_pcr(Tpm(transport), entry.event.pcr, entry.event.digests)
        transport.close()

    def evidence(self, policy: Policy, nonce: bytes = NONCE) -> Evidence:
        return collect(self.tools, HOST, nonce, policy.selection, self.root)

    def enrol(self, policy: Policy, anchors: Anchors, template: str = "", before: KnownHost | None = None) -> KnownHost:
        ek = self.tools.endorsement_key(template)
        claim = Claim(HOST, ek.public, ek.certificate, self.tools.make_attestation_key(ek))
        asked = challenge(claim, policy, anchors, at=AT, before=before)
        return admit(asked, self.tools.activate(ek, asked.credential))


@contextmanager
def booted(state: Path, folder: Path, logs: Logs) -> Iterator[Machine]:
    """Switch a machine on (its TPM keeps its state from one boot to the next) and boot it."""
    folder.mkdir(exist_ok=True)
    with powered(state, folder / "s") as socket:
        machine = Machine(TpmTools(folder, f"swtpm:path={socket}"), socket, folder / "root")
        machine.measure(logs)
        for path, data in ((FIRMWARE_LOG, logs.firmware), (SYSTEMD_LOG, logs.systemd), (IMA_LOG, logs.ima)):
            target = machine.root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        yield machine


def authority(state: Path) -> Anchors:
    """The CA that swtpm_setup made for this TPM: as a software TPM's root, or hardware's, for who wants to pretend."""
    folder = state.parent / f"{state.name}-ca"
    root, issuer = (
        x509.load_pem_x509_certificates((folder / name).read_bytes())
        for name in ("swtpm-localca-rootca-cert.pem", "cert.pem")
    )
    return Anchors(software=tuple(root), intermediates=tuple(issuer))


def values_of(logs: Logs) -> dict[str, dict[int, bytes]]:
    replayed = {bank: logs.boot().replay(bank) for bank in BANKS}
    return {bank: {pcr: values[pcr] for pcr in PCRS} for bank, values in replayed.items()}


def policy_for(logs: Logs, profile: Profile = Profile.APPLIANCE, image_pcrs: tuple[int, ...] = (11, 12)) -> Policy:
    """A policy that accepts exactly this boot, on any TPM."""
    boot, values = logs.boot(), values_of(logs)
    return Policy(
        "box",
        profile,
        PCRS,
        images=(reference.image_of(boot, values, image_pcrs, "kosmos-1"),),
        firmware=(reference.firmware_of(boot, values, FIRMWARE_PCRS, "firmware 1.0"),),
        firmware_pcrs=FIRMWARE_PCRS,
        endorsement=tuple(Endorsement),
    )
