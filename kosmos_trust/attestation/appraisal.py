"""From evidence to a verdict. A pure function of evidence, policy, what is known of the host, nonce and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from .compare import against_firmware, against_image, unexplained
from .evidence import Evidence
from .logs import MeasuredBoot, parse_logs
from .policy import Image, Policy, Profile
from .quote import Values, verify_quote
from .refusal import Reason, Refused
from .state import KnownHost, Mark, MarkKind, after_quote, require_forward, with_marks
from .structures import Public, Quote, parse_public
from .verdict import Result, Verdict


@dataclass(frozen=True)
class Appraisal:
    """The verdict, and what is known of the host from now on. Only a quote that was believed changes the latter."""

    verdict: Verdict
    known: KnownHost


def appraise(evidence: Evidence, policy: Policy, known: KnownHost, *, nonce: bytes, at: datetime) -> Appraisal:
    """Judge one piece of evidence. Never raises for anything in the evidence: a fault there is a verdict.

    `nonce` is what this verifier sent for this quote and nobody has used before; `at` is now. Raises Refused only when
    `known` itself is damaged (its keys cannot be read).
    """
    key = parse_public(known.ak_public, "known attestation key")
    verdict = Verdict(known.name, Result.UNTRUSTED, at, nonce, key.name, policy.name, policy.digest, marks=known.marks)
    try:
        quote = _believe(evidence, policy, known, key, nonce=nonce)
    except Refused as error:
        return Appraisal(replace(verdict, reasons=(error.reason,)), known)
    known = after_quote(known, quote.clock)
    verdict = replace(verdict, clock=quote.clock, tpm_firmware=quote.firmware)
    try:
        boot = parse_logs(evidence.firmware_log, evidence.systemd_log, evidence.ima_log, policy.banks)
        reasons = tuple(unexplained(boot, evidence.values))
    except Refused as error:
        reasons = (error.reason,)
    if reasons:
        return Appraisal(replace(verdict, reasons=reasons), known)
    known = with_marks(known, _marks(boot, policy, at))
    verdict = replace(verdict, secure_boot=boot.secure_boot, marks=known.marks)
    return Appraisal(_judge(verdict, boot, evidence.values, policy), known)


def _believe(evidence: Evidence, policy: Policy, known: KnownHost, key: Public, *, nonce: bytes) -> Quote:
    """Return the quote once it is proved to be this host's, fresh, and about what the policy asks for."""
    if evidence.host != known.name:
        raise Refused("host", "evidence: is about another host", found=evidence.host, expected=known.name)
    if policy.profile != known.profile:
        words = "the host was enrolled under another profile: enrol it again under this one"
        raise Refused("profile", words, found=known.profile.value, expected=policy.profile.value)
    if known.endorsement not in policy.endorsement:
        words = "the policy does not accept who vouches for this TPM"
        raise Refused("ek.endorsement", words, found=known.endorsement, expected=", ".join(policy.endorsement))
    if evidence.attestation_key != key.name:
        words = "evidence: is by another attestation key than the one that was enrolled"
        raise Refused("ak.unknown", words, found=evidence.attestation_key.hex(), expected=key.name.hex())
    quote = verify_quote(
        evidence.attest,
        evidence.signature,
        key,
        nonce=nonce,
        selection=policy.selection,
        values=evidence.values,
    )
    # The TPM itself says under which parent the key is: under the EK that was enrolled, in the endorsement hierarchy.
    ek = parse_public(known.ek_public, "known endorsement key")
    if quote.signer != (qualified := key.qualified_name(ek.qualified_name())):
        words = "quote: its key is not a child of the enrolled endorsement key"
        raise Refused("quote.signer", words, found=quote.signer.hex(), expected=qualified.hex())
    require_forward(known.clock, quote.clock)
    return quote


def _marks(boot: MeasuredBoot, policy: Policy, at: datetime) -> list[Mark]:
    if boot.secure_boot or policy.profile is Profile.LAB:
        return []
    return [Mark(MarkKind.SECURE_BOOT_OFF, at, "booted without Secure Boot, or without a log that proves it")]


def _judge(verdict: Verdict, boot: MeasuredBoot, values: Values, policy: Policy) -> Verdict:
    image, wrong_image = _nearest_image(boot, values, policy.images, verdict.at)
    states = [(approved, against_firmware(boot, values, approved)) for approved in policy.firmware]
    approved, wrong_firmware = min(states, key=lambda pair: len(pair[1]), default=(None, _unapproved(values, policy)))
    if wrong_image:
        result = Result.UNTRUSTED
    elif wrong_firmware:
        result = Result.CHANGED_FIRMWARE
    else:
        result = Result.DEGRADED if verdict.marks else Result.TRUSTED
    return replace(
        verdict,
        result=result,
        reasons=(*wrong_image, *wrong_firmware),
        image=None if wrong_image else image.name,
        firmware=None if wrong_firmware or approved is None else approved.name,
    )


def _nearest_image(
    boot: MeasuredBoot, values: Values, images: Sequence[Image], at: datetime
) -> tuple[Image, list[Reason]]:
    """Return the image with the fewest differences; one whose time is over counts as a difference."""
    found = []
    for image in images:
        reasons = against_image(boot, values, image)
        if image.until is not None and at > image.until:
            words = f"image {image.name} is retired: install the update, or extend its time"
            reasons.append(Reason("image.retired", words, found=at.isoformat(), expected=image.until.isoformat()))
        found.append((image, reasons))
    image, reasons = min(found, key=lambda pair: len(pair[1]))
    return image, [replace(reason, words=f"image {image.name}: {reason.words}") for reason in reasons]


def _unapproved(values: Values, policy: Policy) -> list[Reason]:
    words = "no state of the firmware is approved yet: look at it, then approve it"
    bank = policy.banks[0]
    return [
        Reason("firmware.pcr", words, pcr=pcr, bank=bank, found=values[bank][pcr].hex(), expected="an approved state")
        for pcr in policy.firmware_pcrs
    ]
