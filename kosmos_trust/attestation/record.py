"""Durable attestation: all that a verdict was computed from, in one document, so that anybody can compute it again.

A record proves itself only together with its digest, which belongs into a ledger at the time of the verdict: without
it, whoever holds the file could rewrite time, host record and verdict together. The quote inside cannot be rewritten.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import ClassVar

from . import document
from .appraisal import appraise
from .document import Hex
from .evidence import Evidence
from .policy import Policy
from .refusal import Refused
from .state import KnownHost
from .verdict import Verdict


@dataclass(frozen=True)
class Record:
    """The evidence, the nonce it answered, what was known of the host before, and the verdict (which has the time)."""

    FORMAT: ClassVar[str] = "kosmos.attestation-record/v1"

    evidence: Evidence
    nonce: Hex
    known: KnownHost
    verdict: Verdict


def seal(record: Record) -> tuple[bytes, str]:
    """Return the record's bytes, and their SHA-384 (hexadecimal) for the ledger."""
    data = document.write(record)
    return data, hashlib.sha384(data).hexdigest()


def recompute(data: bytes, digest: str, policy: Policy) -> Verdict:
    """Compute the verdict of a record again, offline, and return it when it is the recorded one.

    `digest` comes from the ledger, `policy` is the one of that time. Raises Refused when the bytes are not those of the
    digest, the policy is another one, or the verdict comes out differently (then the words name the first difference).
    """
    if (found := hashlib.sha384(data).hexdigest()) != digest:
        raise Refused("record.digest", "record: is not the one that was noted", found=found, expected=digest)
    record = document.read(Record, data, "record")
    if policy.digest != record.verdict.policy_digest:
        words = "record: was judged by another policy, or by another version of it"
        raise Refused("record.policy", words, found=policy.digest, expected=record.verdict.policy_digest)
    verdict = appraise(record.evidence, policy, record.known, nonce=record.nonce, at=record.verdict.at).verdict
    for field in fields(Verdict):
        ours, theirs = getattr(verdict, field.name), getattr(record.verdict, field.name)
        if ours != theirs:
            words = f"record: `{field.name}` of the verdict does not follow from the evidence"
            raise Refused("record.verdict", words, found=str(theirs), expected=str(ours))
    return verdict
