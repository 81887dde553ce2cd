"""TPM commands that change something: only tests need them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from kosmos_trust.tpm import RC_RETRY, Tpm, TpmError

ALGORITHM = {"sha1": 4, "sha256": 0xB, "sha384": 0xC}
OWNER, LOCKOUT, PASSWORD_SESSION = 0x40000001, 0x4000000A, 0x40000009
INDEX = 0x01500001
MAX_TRIES = 40


def _with_password(device: Tpm, code: int, handles: tuple[int, ...], parameters: bytes, password: bytes = b"") -> None:
    """Send a command authorised by a password session (part 1, 19.4)."""
    session = struct.pack(">IHBH", PASSWORD_SESSION, 0, 0, len(password)) + password
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    body += struct.pack(">I", len(session)) + session + parameters
    for _ in range(MAX_TRIES):
        answer = device.transport.exchange(struct.pack(">HII", 0x8002, 10 + len(body), code) + body)
        result = struct.unpack(">I", answer[6:10])[0]
        if result == 0:
            return
        if result not in RC_RETRY:
            raise TpmError(f"0x{result:x}", result)
    raise TpmError("the TPM kept asking for a retry")


def extend_pcr(device: Tpm, pcr: int, digests: Mapping[str, bytes]) -> None:
    parameters = struct.pack(">I", len(digests))
    parameters += b"".join(struct.pack(">H", ALGORITHM[name]) + digest for name, digest in digests.items())
    _with_password(device, 0x182, (pcr,), parameters)


def lock_out(device: Tpm) -> None:
    """Define an NV index with a password and guess wrong until the dictionary attack logic bites."""
    attributes = 1 << 2 | 1 << 18  # AUTHWRITE, AUTHREAD; without NO_DA, so wrong guesses count
    public = struct.pack(">IHIHH", INDEX, 0xB, attributes, 0, 8)
    _with_password(device, 0x12A, (OWNER,), struct.pack(">H", 4) + b"true" + struct.pack(">H", len(public)) + public)
    write = struct.pack(">H", 8) + bytes(8) + struct.pack(">H", 0)
    _with_password(device, 0x137, (INDEX, INDEX), write, b"true")
    for _ in range(MAX_TRIES):
        try:
            _with_password(device, 0x14E, (INDEX, INDEX), struct.pack(">HH", 8, 0), b"wrong")
        except TpmError as error:
            if error.code == 0x921:  # TPM_RC_LOCKOUT
                return
    raise AssertionError("the TPM never locked out")
