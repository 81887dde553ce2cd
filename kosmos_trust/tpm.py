"""Ask a TPM 2.0 about itself: capabilities, PCR values, NV indices. No tool, no TSS, no session.

Byte layouts: TCG "Trusted Platform Module Library", part 2 (structures) and part 3 (commands), revision 1.59.
Standard library only: this module also runs on a stock host, inside an Ansible module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from .eventlog import ALGORITHMS, PCR_COUNT

#: The resource manager first: it keeps sessions and objects of several users apart.
DEVICES = ("/dev/tpmrm0", "/dev/tpm0")
MAX_RESPONSE = 4096
DEFAULT_TIMEOUT_SECONDS = 20.0  # part 1: the longest command without key generation is far below this
RETRIES = 5
RETRY_PAUSE_SECONDS = 0.2

ST_NO_SESSIONS = 0x8001
CC_GET_CAPABILITY, CC_PCR_READ, CC_NV_READ_PUBLIC = 0x17A, 0x17E, 0x169
CAP_HANDLES, CAP_PCRS, CAP_PROPERTIES, CAP_CURVES = 1, 5, 6, 8
PT_FAMILY, PT_REVISION, PT_MANUFACTURER, PT_PERMANENT = 0x100, 0x102, 0x105, 0x200
PT_LOCKOUT_COUNTER, PT_MAX_AUTH_FAIL = 0x20E, 0x20F
PERMANENT_IN_LOCKOUT = 1 << 9
RC_RETRY = frozenset({0x922, 0x908, 0x90A})  # retry, yielded, testing
RC_HANDLE = 0x18B  # part 2, 6.6.3: handle 1 is not known
NV_FIRST = 0x01000000
NV_WRITTEN = 1 << 29
CURVES = {1: "P-192", 2: "P-224", 3: "P-256", 4: "P-384", 5: "P-521", 0x10: "BN-256", 0x11: "BN-638", 0x20: "SM2-256"}
#: EK Credential Profile 2.5, section 2.2.1: where manufacturers keep EK certificates.
EK_CERTIFICATES = {
    0x01C00002: "RSA-2048 (L-1)",
    0x01C0000A: "P-256 (L-2)",
    0x01C00012: "RSA-2048 (H-1)",
    0x01C00014: "P-256 (H-2)",
    0x01C00016: "P-384 (H-3)",
    0x01C00018: "P-521 (H-4)",
    0x01C0001A: "SM2-256 (H-5)",
    0x01C0001C: "RSA-3072 (H-6)",
    0x01C0001E: "RSA-4096 (H-7)",
}


class TpmError(Exception):
    """The TPM refused, answered nonsense, or did not answer. `code` is its response code, when it gave one."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class TpmAbsentError(TpmError):
    """There is no TPM device."""


class Transport(Protocol):
    """What carries one command to a TPM and its response back."""

    def exchange(self, command: bytes) -> bytes:
        """Return the whole response to one whole command. Raises TpmError when none comes."""

    def close(self) -> None:
        """Let go of the TPM."""


class DeviceTransport:
    """A TPM character device, used without blocking so that a dead TPM costs a timeout and not a hang."""

    def __init__(self, path: Path, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.path, self.timeout = path, timeout_seconds
        try:
            self.handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            hint = " (another program holds it)" if error.errno == errno.EBUSY else ""
            raise TpmError(f"{path}: {error.strerror}{hint}") from error

    def exchange(self, command: bytes) -> bytes:
        """Return the response. Raises TpmError on a timeout or an I/O error."""
        try:
            os.write(self.handle, command)
            if not select.select([self.handle], [], [], self.timeout)[0]:
                raise TpmError(f"{self.path}: no answer within {self.timeout:g} s")
            return os.read(self.handle, MAX_RESPONSE)
        except OSError as error:
            raise TpmError(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the device."""
        with contextlib.suppress(OSError):
            os.close(self.handle)


@dataclass(frozen=True)
class NvPublic:
    """The public area of an NV index: index, attributes (TPMA_NV), size in bytes, and whether it was written."""

    index: int
    attributes: int
    size: int

    @property
    def written(self) -> bool:
        """Return whether the index holds data."""
        return bool(self.attributes & NV_WRITTEN)


class _Fields:
    """Bounded reads of big-endian fields from one response."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.position:
            raise TpmError(f"the TPM's answer is cut off: {size} bytes announced at {self.position}")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, form: str) -> int:
        value: int = struct.unpack(f">{form}", self.take(struct.calcsize(f">{form}")))[0]
        return value

    def count(self) -> int:
        value = self.number("I")
        if value > MAX_RESPONSE:
            raise TpmError(f"the TPM's answer announces {value} entries")
        return value

    def selections(self) -> dict[str, list[int]]:
        """Read TPML_PCR_SELECTION: PCR numbers by bank name."""
        banks: dict[str, list[int]] = {}
        for _ in range(self.count()):
            algorithm, bits = self.number("H"), int.from_bytes(self.take(self.number("B")), "little")
            name = ALGORITHMS[algorithm][0] if algorithm in ALGORITHMS else f"0x{algorithm:04x}"
            banks[name] = [pcr for pcr in range(PCR_COUNT) if bits >> pcr & 1]
        return banks


class Tpm:
    """A TPM 2.0 behind a transport. A context manager: leaving it closes the transport."""

    def __init__(self, transport: Transport, sleep: Callable[[float], None] = time.sleep) -> None:
        self.transport, self.sleep = transport, sleep

    def __enter__(self) -> Tpm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transport.close()

    def command(self, code: int, parameters: bytes) -> bytes:
        """Return the parameters of the response. Raises TpmError when the TPM refuses or answers nonsense."""
        packet = struct.pack(">HII", ST_NO_SESSIONS, 10 + len(parameters), code) + parameters
        for attempt in range(RETRIES):
            answer = self.transport.exchange(packet)
            if len(answer) < 10 or struct.unpack(">I", answer[2:6])[0] != len(answer):
                raise TpmError(f"command 0x{code:x}: the answer of {len(answer)} bytes is not a TPM 2.0 response")
            result: int = struct.unpack(">I", answer[6:10])[0]
            if result == 0:
                return answer[10:]
            if result not in RC_RETRY or attempt == RETRIES - 1:
                raise TpmError(f"command 0x{code:x}: the TPM answered 0x{result:x}", result)
            self.sleep(RETRY_PAUSE_SECONDS)
        raise AssertionError("unreachable")

    def _capability(self, capability: int, first: int, count: int) -> tuple[bool, _Fields]:
        fields = _Fields(self.command(CC_GET_CAPABILITY, struct.pack(">III", capability, first, count)))
        more, answered = fields.number("B"), fields.number("I")
        if answered != capability:
            raise TpmError(f"asked for capability {capability}, answered {answered}")
        return bool(more), fields

    def _listed(self, capability: int, first: int, form: str, last: int) -> Iterator[tuple[int, ...]]:
        """Yield the entries of a capability whose list may come in several answers; the first field is the key."""
        while first <= last:
            more, fields = self._capability(capability, first, 64)
            entries: list[tuple[int, ...]] = []
            for _ in range(fields.count()):
                entries.append(struct.unpack(f">{form}", fields.take(struct.calcsize(f">{form}"))))
            yield from (entry for entry in entries if first <= entry[0] <= last)
            if not more or not entries or entries[-1][0] < first:
                return
            first = entries[-1][0] + 1

    def properties(self) -> dict[int, int]:
        """Return all TPM properties (TPM_PT) and their values."""
        ranges = ((PT_FAMILY, 0x1FF), (PT_PERMANENT, 0x2FF))
        return {entry[0]: entry[1] for low, high in ranges for entry in self._listed(CAP_PROPERTIES, low, "II", high)}

    def banks(self) -> dict[str, list[int]]:
        """Return the allocated PCR numbers by bank name; a bank that is switched off has none."""
        return self._capability(CAP_PCRS, 0, 1)[1].selections()

    def curves(self) -> list[str]:
        """Return the names of the elliptic curves."""
        return [CURVES.get(entry[0], f"0x{entry[0]:04x}") for entry in self._listed(CAP_CURVES, 0, "H", 0xFFFF)]

    def nv_indices(self) -> list[int]:
        """Return the defined NV indices."""
        return [entry[0] for entry in self._listed(CAP_HANDLES, NV_FIRST, "I", NV_FIRST + 0xFFFFFF)]

    def nv_public(self, index: int) -> NvPublic | None:
        """Return the public area of an NV index, None where it is not defined."""
        try:
            fields = _Fields(self.command(CC_NV_READ_PUBLIC, struct.pack(">I", index)))
        except TpmError as error:
            if error.code == RC_HANDLE:
                return None
            raise
        fields.number("H")
        number, _, attributes = fields.number("I"), fields.number("H"), fields.number("I")
        fields.take(fields.number("H"))
        return NvPublic(number, attributes, fields.number("H"))

    def ek_certificates(self) -> list[str]:
        """Return the names of the EK certificates that are stored and written."""
        publics = ((name, self.nv_public(index)) for index, name in EK_CERTIFICATES.items())
        return [name for name, public in publics if public and public.written and public.size]

    def pcr_values(self, bank: str, pcrs: Sequence[int] = tuple(range(PCR_COUNT))) -> dict[int, bytes]:
        """Return PCR values of one bank by number. Raises TpmError when the bank does not hold one of them."""
        algorithm = next((number for number, (name, _) in ALGORITHMS.items() if name == bank), None)
        if algorithm is None:
            raise TpmError(f"there is no bank {bank!r}")
        values: dict[int, bytes] = {}
        while missing := [pcr for pcr in pcrs if pcr not in values]:
            bits = sum(1 << pcr for pcr in missing).to_bytes(3, "little")
            fields = _Fields(self.command(CC_PCR_READ, struct.pack(">IHB", 1, algorithm, 3) + bits))
            fields.number("I")
            answered = fields.selections().get(bank, [])
            if fields.count() != len(answered) or not set(answered) & set(missing):
                raise TpmError(
                    f"the bank {bank} does not hold PCR {missing[0]}: it is switched off, or was not allocated"
                )
            values |= {pcr: fields.take(fields.number("H")) for pcr in answered}
        return values


def open_device(root: Path = Path("/"), timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> Tpm:
    """Return the machine's TPM. Raises TpmAbsentError when there is no device, TpmError when it cannot be opened."""
    for device in DEVICES:
        path = root / device.lstrip("/")
        if path.is_char_device():
            return Tpm(DeviceTransport(path, timeout_seconds))
    raise TpmAbsentError(f"neither {' nor '.join(DEVICES)} exists")
