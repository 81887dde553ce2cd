"""Probes over the TPM and over the logs of what was measured at boot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind, ProbeError
from ansible_collections.kosmos.appliance.plugins.module_utils.trust import eventlog, tpm
from ansible_collections.kosmos.appliance.plugins.module_utils.trust.eventlog import FIRMWARE_LOG, IMA_LOG, SYSTEMD_LOG

ATTEMPTS = 3
TPM_KEY = "tpm"


def _text(number: int | None) -> str | None:
    return None if number is None else number.to_bytes(4, "big").rstrip(b"\0 ").decode("ascii", "replace")


def _whole_banks(device: tpm.Tpm) -> list[str]:
    return [bank for bank, pcrs in device.banks().items() if len(pcrs) == eventlog.PCR_COUNT]


ASKED: Mapping[str, tuple[Callable[[tpm.Tpm], Any], str]] = {
    "banks": (_whole_banks, "TPM2_GetCapability(PCRS): banks with PCR 0-23"),
    "curves": (tpm.Tpm.curves, "TPM2_GetCapability(ECC_CURVES)"),
    "ek_certificates": (tpm.Tpm.ek_certificates, "TPM2_NV_ReadPublic over the EK certificate indices"),
}
FACTS: Mapping[str, Callable[[Mapping[int, int]], Any]] = {
    "present": bool,
    "version": lambda facts: _text(facts.get(tpm.PT_FAMILY)),
    "revision": lambda facts: facts.get(tpm.PT_REVISION),
    "manufacturer": lambda facts: _text(facts.get(tpm.PT_MANUFACTURER)),
    "in_lockout": lambda facts: bool(facts.get(tpm.PT_PERMANENT, 0) & tpm.PERMANENT_IN_LOCKOUT),
    "lockout_counter": lambda facts: facts.get(tpm.PT_LOCKOUT_COUNTER),
    "lockout_limit": lambda facts: facts.get(tpm.PT_MAX_AUTH_FAIL),
}


def the_tpm(host: Host) -> tpm.Tpm | None:
    """Return the host's TPM, opened once per batch; None when there is none."""

    def read() -> tpm.Tpm | None:
        try:
            return tpm.open_device(host.root)
        except tpm.TpmAbsentError:
            return None

    return host.once(TPM_KEY, read)


def ask_tpm(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell an attribute of the TPM; without one everything is absent."""
    attribute, device = str(args["attribute"]), the_tpm(host)
    if device is None:
        value = False if attribute == "present" else None
        return Found(value, f"no TPM: neither {' nor '.join(tpm.DEVICES)} exists")
    read, evidence = ASKED.get(attribute, (None, f"TPM2_GetCapability(TPM_PROPERTIES): {attribute}"))
    if read is not None:
        return Found(read(device), evidence)
    facts = host.once("tpm properties", device.properties)
    return Found(FACTS[attribute](facts), evidence)


def event_log(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the PCRs that the boot logs do not explain in one bank ([] is what an honest boot gives)."""
    bank, device = str(args["bank"]), the_tpm(host)
    if device is None:
        return Found(None, "no TPM: there is nothing to compare the logs with")
    for _ in range(ATTEMPTS):
        logs = _logs(host)
        if logs[0] is None:
            return Found(None, f"{FIRMWARE_LOG}: absent; the firmware handed over no event log")
        actual = device.pcr_values(bank)
        # IMA and systemd may measure while we read: a comparison only counts between two equal readings.
        if _logs(host) == logs:
            break
    else:
        raise ProbeError(f"the logs changed during each of {ATTEMPTS} readings")
    firmware, user, ima = logs
    events = eventlog.parse_firmware_log(firmware or b"")
    count = len(events)
    events += eventlog.parse_systemd_log((user or b"").decode("utf-8", "replace"))
    events += eventlog.parse_ima_log(ima or b"", [bank])
    wrong = eventlog.mismatches(eventlog.replay(events, bank), actual)
    return Found(
        wrong, f"{count} firmware events and {len(events) - count} of systemd and IMA against PCR 0-23 ({bank})"
    )


def _logs(host: Host) -> tuple[bytes | None, bytes | None, bytes | None]:
    firmware, user, ima = (host.data(path, eventlog.MAX_LOG_BYTES) for path in (FIRMWARE_LOG, SYSTEMD_LOG, IMA_LOG))
    return firmware, user, ima


KINDS = {
    "tpm": Kind(
        ask_tpm,
        "The TPM, asked without any tool. `banks`: those that hold PCR 0-23; `ek_certificates`: those stored.",
        (
            Arg(
                "attribute",
                "what to tell",
                required=True,
                choices=(*FACTS, *ASKED),
            ),
        ),
        rooted=False,
    ),
    "event_log": Kind(
        event_log,
        "List of PCRs whose value the logs of firmware, systemd and IMA do not explain.",
        (Arg("bank", "PCR bank", required=True, choices=eventlog.REPLAYED_BANKS),),
        rooted=False,
    ),
}
