"""May this image become the default? It may when it is proven that it can start, and unlock what is locked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from . import pcrsig, pe
from .errors import ImageError, SignatureError
from .esp import Room
from .findings import Finding, Verdict
from .prediction import ALL_PATHS, BANKS, PCR, UNLOCK_BANK, measure, policies
from .roles import Role
from .token import Volume

#: Some firmware stalls or fails above 150 MB (kairos#4618, kairos#2356); this leaves a margin.
MAX_BYTES = 100_000_000
NEEDED_SECTIONS = (".linux", ".initrd", ".cmdline", ".osrel", ".uname", ".sbat", ".pcrpkey")
_REBUILD = "build it again with: kosmos-boot update"


@dataclass(frozen=True)
class Expectation:
    """What this host needs of an image.

    cmdline: the declared kernel command line. signers: the public keys by role, two per role while keys are rotated.
    volumes: the LUKS2 volumes that it has to open. room: the ESP's answer for it, None when the image is there already.
    secure_boot: returns why an image is not accepted by the owner's key, None when it is; None when Secure Boot is off.
    """

    cmdline: str
    signers: Mapping[Role, tuple[RSAPublicKey, ...]]
    volumes: tuple[Volume, ...] = ()
    room: Room | None = None
    secure_boot: Callable[[bytes], str | None] | None = None


def judge(data: bytes, label: str, expected: Expectation) -> Verdict:
    """Return the verdict on the image in `data`; nothing is changed, and nothing is raised for a bad image."""
    findings = [
        Finding(
            "boot.image.size",
            "The image is small enough for firmware to load",
            len(data) < MAX_BYTES,
            f"{len(data)} bytes",
            f"less than {MAX_BYTES} bytes",
            "leave drivers out of the initrd (dracut --hostonly), or firmware out of it",
        )
    ]
    if expected.room is not None:
        findings.append(expected.room.finding())
    try:
        image = pe.parse(data, label)
    except ImageError as error:
        findings.append(_readable(str(error.why)))
        return Verdict(label, tuple(findings))
    findings.append(_readable(None))
    findings += _contents(image, expected)
    findings += _signatures(image, expected)
    if expected.secure_boot is not None:
        why = expected.secure_boot(data)
        findings.append(
            Finding(
                "boot.image.secure_boot",
                "The image is signed with the owner's Secure Boot key",
                why is None,
                why or "a valid signature",
                "a signature that the owner's certificate verifies",
                _REBUILD,
            )
        )
    return Verdict(label, tuple(findings))


def _readable(why: str | None) -> Finding:
    return Finding(
        "boot.image.readable", "The image is a whole EFI program", why is None, why or "a whole one",
        "a PE image whose sections all lie inside the file", _REBUILD,
    )  # fmt: skip


def _contents(image: pe.Image, expected: Expectation) -> Iterator[Finding]:
    missing = [name for name in NEEDED_SECTIONS if name not in image.names]
    yield Finding(
        "boot.image.sections", "The image has every part of a boot", not missing,
        f"without {', '.join(missing)}" if missing else "all of them", ", ".join(NEEDED_SECTIONS), _REBUILD,
    )  # fmt: skip
    cmdline = _text(image, ".cmdline")
    yield Finding(
        "boot.image.command_line", "The kernel command line is the declared one", cmdline == expected.cmdline,
        cmdline, expected.cmdline, _REBUILD,
    )  # fmt: skip
    ours = [pcrsig.to_pem(key).decode().strip() for key in expected.signers.get(Role.ALL, ())]
    carried = _text(image, ".pcrpkey").strip() in ours
    yield Finding(
        "boot.image.public_key", "The image carries our public key for new enrolments", carried,
        "our key" if carried else "another key or none", "the key for all phases", _REBUILD,
    )  # fmt: skip


def _signatures(image: pe.Image, expected: Expectation) -> Iterator[Finding]:
    entries: tuple[pcrsig.Entry, ...] = ()
    trouble = "there is no section .pcrsig"
    if ".pcrsig" in image.names:
        try:
            entries, trouble = pcrsig.parse(image.content(".pcrsig"), image.label), "the section is empty"
        except SignatureError as error:
            trouble = error.why
    yield Finding(
        "boot.signature.present", "The image carries PCR policy signatures", bool(entries),
        f"{len(entries)} signatures" if entries else trouble, "one section .pcrsig with signatures", _REBUILD,
    )  # fmt: skip
    if not entries:
        return
    known = {pcrsig.fingerprint(key): (role, key) for role, keys in expected.signers.items() for key in keys}
    unproven = [
        one for one in entries if one.fingerprint not in known or not pcrsig.verify(one, known[one.fingerprint][1])
    ]
    yield Finding(
        "boot.signature.valid", "Every signature was made by one of our keys", not unproven,
        _tell(unproven) or f"{len(entries)} valid signatures", "signatures by " + (_short(known) or "no key"),
        "a foreign key has signed it, or it was changed: do not use it; " + _REBUILD,
    )  # fmt: skip
    yield from _policies(image, [one for one in entries if one not in unproven], known)
    signing = {one.fingerprint for one in entries if one not in unproven and one.bank == UNLOCK_BANK}
    shut = [volume for volume in expected.volumes if volume.fingerprints and not volume.fingerprints & signing]
    sealed = [volume for volume in expected.volumes if volume.fingerprints]
    yield Finding(
        "boot.key.enrolled", "Each sealed volume has the signing key in its LUKS token", not shut,
        "; ".join(f"{one.device}: enrolled is {_short(one.fingerprints)}" for one in shut)
        or f"{len(sealed)} of {len(expected.volumes)} volumes sealed, all to our keys",
        f"one of {_short(signing) or 'no key'}",
        "sign with the enrolled key; to change keys: kosmos-boot rotate-key",
    )  # fmt: skip
    yield _bound(expected.volumes, signing)


def _bound(volumes: Iterable[Volume], signing: set[str]) -> Finding:
    """A token may name our key and still be sealed to something else: then it would not open."""
    lost = []
    for volume in volumes:
        ours = [one for one in volume.tokens if one.fingerprint in signing]
        if ours and not any(one.bound for one in ours):
            lost.append(f"{volume.device}: token {', '.join(str(one.number) for one in ours)}")
    return Finding(
        "boot.key.bound", "The tokens are sealed to our key, and to PCRs of zero", not lost,
        "; ".join(lost) or "they are", "the policy that key and PCRs give",
        "enrol the volume again: apply the role host_storage",
    )  # fmt: skip


def _policies(
    image: pe.Image, entries: list[pcrsig.Entry], known: Mapping[str, tuple[Role, RSAPublicKey]]
) -> Iterator[Finding]:
    predicted = {bank: policies(measure(image, bank), bank, ALL_PATHS) for bank in BANKS}
    meanings = {(bank, digest): path for bank, found in predicted.items() for path, digest in found.items()}
    wrong = [one for one in entries if one.pcrs != (PCR,) or (one.bank, one.policy) not in meanings]
    wide = [
        one for one in entries
        if one not in wrong and meanings[one.bank, one.policy] not in known[one.fingerprint][0].paths
    ]  # fmt: skip
    have = {(one.fingerprint, meanings[one.bank, one.policy]) for one in entries
            if one not in wrong and one.bank == UNLOCK_BANK}  # fmt: skip
    lacking = [f"{path} by {mark[:12]}" for mark, (role, _) in known.items() for path in role.paths
               if (mark, path) not in have]  # fmt: skip
    found = [f"not predicted: {_tell(wrong)}"] if wrong else []
    found += [f"not signed: {', '.join(lacking)}"] if lacking else []
    yield Finding(
        "boot.signature.policy", "The signed policies are what the TPM will measure", not wrong and not lacking,
        "; ".join(found) or "equal to the prediction in every phase",
        f"PCR {PCR} as predicted, in {UNLOCK_BANK}, for each phase",
        "something was changed after signing, or a phase is not signed: " + _REBUILD,
    )  # fmt: skip
    yield Finding(
        "boot.signature.scope", "The key of the initrd signs no later phase", not wide,
        _tell(wide) or "only enter-initrd", "signatures of that key for enter-initrd only",
        "do not use this image, and rotate the key: kosmos-boot rotate-key",
    )  # fmt: skip


def _text(image: pe.Image, name: str) -> str:
    try:
        return image.text(name)
    except ImageError as error:
        return f"({error.what})"


def _tell(entries: Iterable[pcrsig.Entry]) -> str:
    return ", ".join(f"{one.bank} policy {one.policy.hex()[:12]} by {one.fingerprint[:12]}" for one in entries)


def _short(fingerprints: Iterable[str]) -> str:
    return ", ".join(sorted(one[:12] for one in fingerprints))
