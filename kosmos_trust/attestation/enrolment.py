"""Enrolment: from "somebody sent three blobs" to "this key is in that TPM", by credential activation.

The verifier keeps a Challenge to itself, sends its credential, and admits the host that sends back the secret. Only the
TPM with that EK can find it, and only while it holds the named AK, with the attributes that the verifier has checked.
A challenge is for one answer and a short time; whoever serves it forgets it afterwards.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from datetime import datetime

from .chain import Anchors
from .credential import SECRET_BYTES, Credential, make_credential
from .endorsement import Endorsement, judge_endorsement
from .policy import Policy, Profile
from .quote import require_attestation_key
from .refusal import Refused
from .state import KnownHost, Mark, MarkKind, marked
from .structures import parse_public

#: What enrolment outside the lab leaves behind for ever.
MARKS = {
    Endorsement.SOFTWARE: (MarkKind.SOFTWARE_TPM, "was enrolled with a software TPM; its keys are files somewhere"),
    Endorsement.UNKNOWN: (MarkKind.UNPROVEN_TPM, "was enrolled with an EK certificate by an unknown manufacturer"),
    Endorsement.ABSENT: (MarkKind.UNPROVEN_TPM, "was enrolled without an EK certificate; nobody vouches for its TPM"),
}


@dataclass(frozen=True)
class Claim:
    """What a host says of itself: EK and AK as TPMT_PUBLIC, the EK certificate as DER (b"" for none)."""

    name: str
    ek_public: bytes
    ek_certificate: bytes
    ak_public: bytes


@dataclass(frozen=True)
class Challenge:
    """What goes to the host (`credential`), and what stays here: the secret, and the host as it will be known."""

    credential: Credential
    secret: bytes = field(repr=False)
    host: KnownHost


def challenge(
    claim: Claim, policy: Policy, anchors: Anchors, *, at: datetime, before: KnownHost | None = None
) -> Challenge:
    """Return the challenge for a host that wants to be known.

    `before` is what was known of the host of this name, for a new AK in the same TPM; its marks stay. Raises Refused
    when a key cannot be what it should, when the policy does not accept who vouches for the TPM, and when the TPM is
    not the one of `before`.
    """
    ek, ak = parse_public(claim.ek_public, "endorsement key"), parse_public(claim.ak_public, "attestation key")
    require_attestation_key(ak)
    endorsement = judge_endorsement(claim.ek_certificate, ek, anchors, at)
    if endorsement not in policy.endorsement:
        words = f"EK certificate: {endorsement} is not enough for policy {policy.name}"
        raise Refused("ek.endorsement", words, found=endorsement, expected=", ".join(policy.endorsement))
    if before is not None and before.ek_public != claim.ek_public:
        words = f"host {claim.name} is known with another TPM; if the TPM was replaced, forget the host first"
        raise Refused("ek.changed", words)
    marks = before.marks if before is not None else ()
    if policy.profile is not Profile.LAB and endorsement in MARKS:
        kind, words = MARKS[endorsement]
        marks = marked(marks, [Mark(kind, at, words)])
    host = KnownHost(
        claim.name,
        policy.profile,
        at,
        endorsement,
        claim.ek_public,
        claim.ek_certificate,
        claim.ak_public,
        marks=marks,
    )
    secret = os.urandom(SECRET_BYTES)
    return Challenge(make_credential(ek, ak.name, secret), secret, host)


def admit(given: Challenge, answer: bytes) -> KnownHost:
    """Return the host as known from now on. Raises Refused when the answer is not the secret."""
    if not hmac.compare_digest(given.secret, answer):
        raise Refused(
            "credential.answer", f"host {given.host.name}: did not find the secret: it is not the TPM it claims"
        )
    return given.host
