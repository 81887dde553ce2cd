"""The attester's answer to a nonce: one quote, with the logs of the same moment."""

from __future__ import annotations

from pathlib import Path

from .attestation.evidence import Evidence
from .attestation.quote import Selection
from .attestation.structures import parse_public
from .eventlog import FIRMWARE_LOG, IMA_LOG, MAX_LOG_BYTES, SYSTEMD_LOG
from .tpm import TpmError
from .tpm_tools import TpmTools

ATTEMPTS = 5


def collect(tools: TpmTools, host: str, nonce: bytes, selection: Selection, root: Path = Path("/")) -> Evidence:
    """Return evidence for the verifier's nonce.

    Raises TpmError when there is no attestation key or no firmware log, and when the logs kept growing while the TPM
    quoted: IMA and systemd measure at any time, and only logs of the moment of the quote explain its PCR values.
    """
    public = tools.attestation_key()
    if public is None:
        raise TpmError("there is no attestation key: enrol this host first")
    for _ in range(ATTEMPTS):
        logs = _logs(root)
        quoted = tools.quote(nonce, selection)
        if _logs(root) == logs:
            name = parse_public(public).name
            return Evidence(host, name, quoted.attest, quoted.signature, quoted.values, *logs)
    raise TpmError(
        f"the boot logs changed during each of {ATTEMPTS} quotes: something keeps measuring; try again later"
    )


def _logs(root: Path) -> tuple[bytes, bytes, bytes]:
    firmware, systemd, ima = (_read(root / path.lstrip("/")) for path in (FIRMWARE_LOG, SYSTEMD_LOG, IMA_LOG))
    if not firmware:
        raise TpmError(f"{FIRMWARE_LOG}: absent or empty; the firmware handed over no event log, or it is not mounted")
    return firmware, systemd, ima


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_LOG_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise TpmError(f"{path}: {error.strerror}; the logs are for root and the group tss") from error
    if len(data) > MAX_LOG_BYTES:
        raise TpmError(f"{path}: more than {MAX_LOG_BYTES} bytes")
    return data
