"""The attester: make its keys, answer the verifier's challenge, quote. Drives tpm2-tools, the packaged and kept tool.

Argument lists, no shell; each call has its own time limit; what the TPM refuses becomes a TpmError with the cure.
The endorsement and owner hierarchies must have empty passwords, as a manufacturer ships them and Debian leaves them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .attestation.credential import Credential
from .attestation.quote import Selection
from .attestation.refusal import Refused
from .attestation.structures import USER_WITH_AUTH, Public, parse_public, parse_quote
from .eventlog import DIGEST_SIZES
from .tpm import TpmAbsentError, TpmError

PACKAGE = "tpm2-tools"
DEFAULT_TIMEOUT_SECONDS = 60.0  # key generation in a slow discrete TPM takes tens of seconds
#: Persistent and in the owner's range (TCG Registry of Reserved TPM 2.0 Handles); beside, not on, the vendor's EKs.
AK_HANDLE = 0x81010100
#: EK Credential Profile 2.5: tpm2-tools' word for the template, and the NV index of its certificate. Best first.
EK_TEMPLATES: Mapping[str, tuple[str, int]] = {
    "P-384": ("ecc384", 0x01C00016),
    "RSA-2048": ("rsa", 0x01C00002),
    "P-256": ("ecc", 0x01C0000A),
}
AK_CURVES = {"P-384": ("ecc384", "sha384"), "P-256": ("ecc256", "sha256")}
CURVE_WORDS = {"P-384": "TPM2_ECC_NIST_P384", "P-256": "TPM2_ECC_NIST_P256"}
MAX_OUTPUT = 64 * 1024

# Part 2, 6.6.3. The tools print the code as `Esys_Name(0x1DF) - ...`.
CODE = re.compile(r"\(0x([0-9A-Fa-f]{1,8})\)")
FORMAT_ONE = 0x080
CURES: Mapping[int, str] = {
    0x921: "the TPM is locked against guessing: wait, or `tpm2_dictionarylockout --clear-lockout`",
    0x902: "the TPM has no room for another object: `tpm2_flushcontext -t`, or use /dev/tpmrm0",
    0x903: "the TPM has no room for another session: `tpm2_flushcontext -s`",
    0x14B: "the TPM's non-volatile memory is full: evict an unused persistent key (`tpm2_getcap handles-persistent`)",
    0x14C: "the persistent handle is taken: evict what is there, or choose another",
    0x08E: "a hierarchy or key has a password: it must be empty for attestation (`tpm2_changeauth`)",
    0x0A2: "a hierarchy or key has a password: it must be empty for attestation (`tpm2_changeauth`)",
    0x09F: "the credential was made for another endorsement key or attestation key: enrol again",
    0x08B: "the key is not there: enrol this host again",
    0x0A6: "the TPM does not have this curve",
}


def cure_of(code: int) -> str:
    """Return what helps against a TPM response code, '' when nothing is known."""
    # Format-one codes (bit 7) carry the parameter, handle or session number in bits 6 and 8-11.
    return CURES.get(code & 0xBF if code & FORMAT_ONE else code, "")


@dataclass(frozen=True)
class EndorsementKey:
    """An EK in the TPM: its template's name, its public area (TPMT_PUBLIC), its certificate (DER, b"" for none)."""

    template: str
    public: bytes
    certificate: bytes


@dataclass(frozen=True)
class Quoted:
    """What the TPM signed (TPMS_ATTEST), the signature (TPMT_SIGNATURE), and the PCR values by bank and number."""

    attest: bytes
    signature: bytes
    values: Mapping[str, Mapping[int, bytes]]


class TpmTools:
    """tpm2-tools over one TCTI ("" is the tools' own choice, /dev/tpmrm0), with a scratch folder.

    The folder has to be private (0700): for a moment it holds the answer to the verifier's challenge.

    Every public method raises TpmError, and TpmAbsentError where the package is missing.
    """

    def __init__(
        self,
        folder: Path,
        tcti: str = "",
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        ak_handle: int = AK_HANDLE,
    ) -> None:
        self.folder, self.tcti, self.timeout, self.ak_handle = folder, tcti, timeout_seconds, f"0x{ak_handle:08x}"

    def endorsement_key(self, template: str = "") -> EndorsementKey:
        """Return the EK of a template; without one, the best that has a certificate, else RSA-2048."""
        if template:
            return self._endorsement_key(template)
        indices = self._handles("nv-index")
        certified = [name for name, (_, index) in EK_TEMPLATES.items() if index in indices]
        return self._endorsement_key(certified[0] if certified else "RSA-2048")

    def _endorsement_key(self, template: str) -> EndorsementKey:
        if template not in EK_TEMPLATES:
            raise TpmError(f"EK template {template!r}: there are {', '.join(EK_TEMPLATES)}")
        public = self._make_ek(template)
        index, certificate = EK_TEMPLATES[template][1], b""
        if index in self._handles("nv-index"):
            self._run("tpm2_nvread", f"0x{index:08x}", "-o", self._new("certificate"))
            certificate = self._made("certificate")
        return EndorsementKey(template, public, certificate)

    def _make_ek(self, template: str) -> bytes:
        """Make the EK again (it is a function of the TPM's seed and the template) and keep its context."""
        word = EK_TEMPLATES[template][0]
        self._run(
            "tpm2_createek", "-c", self._new("ek.context"), "-G", word, "-u", self._new("ek.public"), "-f", "tpmt"
        )
        self._flush()
        return self._made("ek.public")

    def attestation_key(self) -> bytes | None:
        """Return the public area of the persistent AK, None where there is none yet."""
        if int(self.ak_handle, 16) not in self._handles("persistent"):
            return None
        self._run("tpm2_readpublic", "-c", self.ak_handle, "-f", "tpmt", "-o", self._new("ak.public"))
        return self._made("ak.public")

    def make_attestation_key(self, ek: EndorsementKey, *, allow_p256: bool = False) -> bytes:
        """Make an AK under the EK, in place of the one before, and return its public area.

        P-384; P-256 only when the TPM lacks P-384 and `allow_p256` says so.
        """
        known = self._run("tpm2_getcap", "ecc-curves")
        wanted = ("P-384", "P-256") if allow_p256 else ("P-384",)
        curve = next((name for name in wanted if CURVE_WORDS[name] in known), None)
        if curve is None:
            raise TpmError(f"the TPM has none of the curves {', '.join(wanted)}; P-256 has to be allowed explicitly")
        algorithm, hash_name = AK_CURVES[curve]
        self._make_ek(ek.template)
        argv = ["-C", str(self.folder / "ek.context"), "-c", self._new("ak.context"), "-u", self._new("ak.public")]
        self._run("tpm2_createak", *argv, "-f", "tpmt", "-G", algorithm, "-g", hash_name, "-s", "ecdsa")
        public = self._made("ak.public")
        self._flush()
        if self.attestation_key() is not None:
            self._run("tpm2_evictcontrol", "-C", "o", "-c", self.ak_handle)
        self._run("tpm2_evictcontrol", "-C", "o", "-c", str(self.folder / "ak.context"), self.ak_handle)
        self._flush()
        return public

    def activate(self, ek: EndorsementKey, credential: Credential) -> bytes:
        """Return the secret of the verifier's challenge. The TPM refuses what was made for another EK or AK."""
        (self.folder / "credential").write_bytes(credential.to_file())
        self._make_ek(ek.template)
        argv = ["-c", self.ak_handle, "-C", str(self.folder / "ek.context"), "-i", str(self.folder / "credential")]
        session: list[str] = []
        try:
            if not _public(ek.public).attributes & USER_WITH_AUTH:
                # The low-range templates are used by policy: PolicySecret of the endorsement hierarchy.
                session = ["-S", self._new("session")]
                self._run("tpm2_startauthsession", "--policy-session", *session)
                self._run("tpm2_policysecret", *session, "-c", "e")
                argv += ["-P", f"session:{session[1]}"]
            self._run("tpm2_activatecredential", *argv, "-o", self._new("secret"))
            return self._made("secret")
        finally:
            (self.folder / "secret").unlink(missing_ok=True)
            if session and Path(session[1]).exists():
                self._run("tpm2_flushcontext", session[1])
            self._flush()

    def quote(self, nonce: bytes, selection: Selection) -> Quoted:
        """Return one quote by the persistent AK over all banks of the selection, and the values it covers."""
        public = self.attestation_key()
        if public is None:
            raise TpmError(f"there is no attestation key at {self.ak_handle}: enrol this host first")
        wanted = "+".join(f"{bank}:{','.join(map(str, pcrs))}" for bank, pcrs in selection.items())
        argv = ["-m", self._new("attest"), "-s", self._new("signature"), "-f", "tss"]
        argv += ["-o", self._new("values"), "-F", "values", "-q", nonce.hex(), "-g", _public(public).scheme[1]]
        self._run("tpm2_quote", "-c", self.ak_handle, "-l", wanted, *argv)
        self._flush()
        attest = self._made("attest")
        return Quoted(attest, self._made("signature"), _values(attest, self._made("values")))

    def _handles(self, kind: str) -> set[int]:
        return {int(word, 16) for word in re.findall(r"0x[0-9A-Fa-f]+", self._run("tpm2_getcap", f"handles-{kind}"))}

    def _flush(self) -> None:
        """Without a resource manager, objects that the tools loaded stay in the TPM's few slots."""
        self._run("tpm2_flushcontext", "-t")

    def _new(self, name: str) -> str:
        path = self.folder / name
        path.unlink(missing_ok=True)
        return str(path)

    def _made(self, name: str) -> bytes:
        path = self.folder / name
        if not path.is_file():
            raise TpmError(f"{PACKAGE}: did not write {path.name}")
        return path.read_bytes()

    def _run(self, *argv: str) -> str:
        if shutil.which(argv[0]) is None:
            raise TpmAbsentError(f"{argv[0]} is not installed: install the package {PACKAGE}")
        environment = {**os.environ, "LC_ALL": "C", **({"TPM2TOOLS_TCTI": self.tcti} if self.tcti else {})}
        try:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TpmError(f"{argv[0]}: no answer from the TPM within {self.timeout:g} s") from error
        if done.returncode == 0:
            return done.stdout[:MAX_OUTPUT].decode("utf-8", "replace")
        told = done.stderr[:MAX_OUTPUT].decode("utf-8", "replace")
        codes = [int(word, 16) for word in CODE.findall(told)]
        # The library's own lines carry its source files; the tool's line with the code is the readable one.
        lines = [line for line in told.splitlines() if line.startswith("ERROR")]
        line = next((line for line in reversed(lines) if CODE.search(line)), lines[0] if lines else "no reason given")
        cure = next((found for code in codes if (found := cure_of(code))), "")
        raise TpmError(f"{argv[0]}: {line}{f'; {cure}' if cure else ''}", codes[0] if codes else None)


def _public(data: bytes) -> Public:
    try:
        return parse_public(data)
    except Refused as error:
        raise TpmError(f"{PACKAGE}: {error}") from error


def _values(attest: bytes, packed: bytes) -> dict[str, dict[int, bytes]]:
    """Cut the tools' concatenated values by the quote's own selection."""
    try:
        selection = parse_quote(attest).selection
    except Refused as error:
        raise TpmError(f"{PACKAGE}: {error}") from error
    values: dict[str, dict[int, bytes]] = {}
    for bank, pcrs in selection:
        size = DIGEST_SIZES[bank]
        values[bank] = {pcr: packed[number * size : (number + 1) * size] for number, pcr in enumerate(pcrs)}
        packed = packed[len(pcrs) * size :]
    if packed or any(len(value) != DIGEST_SIZES[bank] for bank in values for value in values[bank].values()):
        raise TpmError(f"{PACKAGE}: the PCR values do not fit the quote's selection")
    return values
