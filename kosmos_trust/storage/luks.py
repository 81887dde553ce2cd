"""A LUKS2 header as facts, and the commands that change it, as data.

No key is ever an argument: a key file (0600, on a tmpfs) or standard input carries it. Sources: cryptsetup(8),
systemd-cryptenroll(1) and systemd v257 src/shared/tpm2-util.c, tpm2_make_luks2_json(), for the field names of tokens.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disk import LABEL, SUBSYSTEM
from .errors import StorageError
from .programs import Command, Run, run

TPM2_TOKEN, RECOVERY_TOKEN = "systemd-tpm2", "systemd-recovery"
#: Written by systemd-stub and tmpfiles on a host that started a signed UKI.
SIGNATURE = Path("/run/systemd/tpm2-pcr-signature.json")
PUBLIC_KEY = Path("/run/systemd/tpm2-pcr-public-key.pem")
BANK = "sha256"
SIGNED_PCR = 11
#: 256 bits as 64 letters of the modhex alphabet in eight groups: systemd v257, src/shared/recovery-key.c.
RECOVERY_KEY = re.compile(rb"\b[cbdefghijklnrtuv]{8}(?:-[cbdefghijklnrtuv]{8}){7}\b")
ARGON2_MINIMUM_KIB, ARGON2_MAXIMUM_KIB = 64 << 10, 1 << 20


@dataclass(frozen=True)
class Kdf:
    """Cost of deriving a slot's key with Argon2id: memory in KiB, lanes, and time to aim at in milliseconds.

    `passes`, where given, fixes the number of passes over the memory instead of measuring this machine (seconds).
    """

    memory_kib: int
    lanes: int
    milliseconds: int = 2000
    passes: int | None = None

    @classmethod
    def for_machine(cls, memory_bytes: int, processors: int) -> Kdf:
        """Return parameters that the machine can also afford at boot: a quarter of its memory, 64 MiB to 1 GiB."""
        quarter = memory_bytes // 4 // 1024
        return cls(min(max(quarter, ARGON2_MINIMUM_KIB), ARGON2_MAXIMUM_KIB), min(max(processors, 1), 4))

    @property
    def options(self) -> tuple[str, ...]:
        """The options of cryptsetup."""
        cost = ("--pbkdf", "argon2id", "--pbkdf-memory", str(self.memory_kib), "--pbkdf-parallel", str(self.lanes))
        if self.passes is not None:
            return (*cost, "--pbkdf-force-iterations", str(self.passes))
        return (*cost, "--iter-time", str(self.milliseconds))


@dataclass(frozen=True)
class Token:
    """One token: type, the key slots it opens and, of a TPM, literal PCRs, signed PCRs, bank and public key (PEM)."""

    type: str
    slots: tuple[int, ...]
    literal_pcrs: tuple[int, ...] = ()
    signed_pcrs: tuple[int, ...] = ()
    bank: str = ""
    public_key: bytes = b""


@dataclass(frozen=True)
class Header:
    """All key slots and all tokens of a LUKS2 header."""

    slots: tuple[int, ...]
    tokens: tuple[Token, ...]

    def of_type(self, kind: str) -> tuple[int, ...]:
        """Return the key slots that tokens of a type name, and that exist."""
        return tuple(sorted({s for token in self.tokens if token.type == kind for s in token.slots} & set(self.slots)))

    @property
    def untold(self) -> tuple[int, ...]:
        """Return the slots that no token names: key files and passphrases."""
        named = {slot for token in self.tokens for slot in token.slots}
        return tuple(slot for slot in self.slots if slot not in named)


def read_header(device: str, run: Run = run) -> Header:
    """Return the header's facts. Raises CommandError when there is no LUKS2 header, StorageError for a strange one."""
    text = run(Command(("cryptsetup", "luksDump", "--dump-json-metadata", device))).stdout
    try:
        content = json.loads(text)
        tokens = tuple(_token(one) for _, one in sorted(content["tokens"].items()))
        return Header(tuple(sorted(map(int, content["keyslots"]))), tokens)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
        raise StorageError(
            "the LUKS2 metadata cannot be read", where=device, why=f"{type(error).__name__}: {error}",
            cure=f"look at it with `cryptsetup luksDump {device}`",
        ) from None  # fmt: skip


def _token(one: dict[str, Any]) -> Token:
    return Token(
        str(one["type"]),
        _numbers(one["keyslots"]),
        _numbers(one.get("tpm2-pcrs", [])),
        _numbers(one.get("tpm2_pubkey_pcrs", [])),
        str(one.get("tpm2-pcr-bank", "")),
        base64.b64decode(one.get("tpm2_pubkey", ""), validate=True),
    )


def _numbers(values: list[Any]) -> tuple[int, ...]:
    return tuple(sorted(int(value) for value in values))


def format_volume(device: str, uuid: str, key_file: Path, kdf: Kdf) -> Command:
    """Return the command that makes a LUKS2 volume of ours with one slot, opened by the key file."""
    naming = ("--label", LABEL, "--subsystem", SUBSYSTEM, "--uuid", uuid)
    cipher = ("--cipher", "aes-xts-plain64", "--key-size", "512")
    key = ("--key-file", str(key_file))
    return Command(
        ("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", *naming, *cipher, *kdf.options, *key, device)
    )


def enrol_recovery(device: str, key_file: Path) -> Command:
    """Return the command that adds a recovery key and prints it: its output is a secret."""
    return Command(
        ("systemd-cryptenroll", f"--unlock-key-file={key_file}", "--recovery-key", device), secret_output=True
    )


@dataclass(frozen=True)
class Seal:
    """What the TPM slot is bound to.

    `public_key` signs PCR 11 (PEM). `literal_zero` are PCRs that have to be zero: 12 always (a command line, a
    credential or an addon that came from outside is measured there), and 15 too for a volume that is opened in the
    initrd only. `literal_now` are PCRs bound to their value of today (7, as an option: a dbx update then locks out).
    """

    public_key: Path = PUBLIC_KEY
    signature: Path = SIGNATURE
    literal_zero: tuple[int, ...] = (12,)
    literal_now: tuple[int, ...] = ()
    tpm_device: str = "auto"

    @property
    def literal_pcrs(self) -> tuple[int, ...]:
        """All PCRs that the token has to name literally."""
        return tuple(sorted({*self.literal_zero, *self.literal_now}))

    @property
    def spoken(self) -> str:
        """The value of --tpm2-pcrs. Only PCR 15 needs its zeros spelled out: it is no longer zero when we enrol."""
        zeros = "0" * 64
        parts = [f"{pcr}:{BANK}={zeros}" if pcr == 15 else str(pcr) for pcr in self.literal_pcrs]
        return "+".join(parts)


def enrol_tpm(device: str, key_file: Path, seal: Seal, *, with_signature: bool) -> Command:
    """Return the command that adds the TPM slot.

    With a signature systemd-cryptenroll unseals once before it writes the slot, so a slot that cannot open is never
    added. Without `--tpm2-pcrs` v257 would bind PCR 7.
    """
    options = [
        f"--unlock-key-file={key_file}",
        f"--tpm2-device={seal.tpm_device}",
        f"--tpm2-pcrs={seal.spoken}",
        f"--tpm2-public-key={seal.public_key}",
        f"--tpm2-public-key-pcrs={SIGNED_PCR}",
    ]
    if with_signature:
        options.append(f"--tpm2-signature={seal.signature}")
    return Command(("systemd-cryptenroll", *options, device))


def test_key(device: str, key_file: str = "-", slot: int | None = None) -> Command:
    """Return the command that tries a key (`-`: from standard input) without opening anything; 2 means refused."""
    only = ("--key-slot", str(slot)) if slot is not None else ()
    argv = ("cryptsetup", "open", "--test-passphrase", "--batch-mode", "--key-file", key_file, *only, device)
    return Command(argv, ok=(0, 2))


def test_tpm(device: str) -> Command:
    """Return the command that asks the TPM token for the key without opening anything."""
    token = ("--token-only", "--token-type", TPM2_TOKEN)
    return Command(("cryptsetup", "open", "--test-passphrase", "--batch-mode", *token, device), ok=(0, 1, 2, 5))


def open_with_tpm(device: str, name: str) -> Command:
    """Return the command that maps the volume with the TPM's key to /dev/mapper/`name`."""
    return Command(("cryptsetup", "open", "--batch-mode", "--token-only", "--token-type", TPM2_TOKEN, device, name))


def open_with_key(device: str, name: str) -> Command:
    """Return the command that maps the volume with a key from standard input."""
    return Command(("cryptsetup", "open", "--batch-mode", "--key-file", "-", device, name))


def add_key_file(device: str, unlock: Path, new: Path, kdf: Kdf) -> Command:
    """Return the command that adds a key file, unlocked by another one."""
    return Command(
        ("cryptsetup", "luksAddKey", "--batch-mode", *kdf.options, "--key-file", str(unlock), device, str(new))
    )


def wipe_slots(device: str, slots: tuple[int, ...]) -> Command:
    """Return the command that destroys key slots and their tokens; needs no key."""
    listed = ",".join(map(str, slots))
    return Command(("systemd-cryptenroll", f"--wipe-slot={listed}", device))


def parse_recovery_key(output: str) -> bytes:
    """Return the recovery key that systemd-cryptenroll printed. Raises StorageError (without the output) if none."""
    found = RECOVERY_KEY.findall(output.encode())
    if len(found) != 1:
        raise StorageError(
            f"systemd-cryptenroll printed {len(found)} recovery keys instead of one",
            cure="run `recovery-key new` again: the slot that was made is wiped first",
        )
    return bytes(found[0])
