"""Who signs an image, where: on this host, or on the controller so that no private key ever is on the appliance.

    host:        image without signatures -> sign -> join
    controller:  image without signatures -> request ... (controller: check, sign) ... -> answer -> join

The request carries what the controller needs to compute the PCR policies itself: the digest of each measured section,
and the short ones as text. So it signs what it has computed, never a policy that a host has handed to it. What it
cannot see from there is whether kernel and initrd are honest; their digests are shown to the person who signs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from . import pcrsig
from .errors import SignatureError
from .pe import Image, with_last_section
from .prediction import BANKS, SECTIONS, UNLOCK_BANK, Measured, measure, policies
from .roles import Role

API_VERSION = "kosmos.boot/v1"
SECTION = ".pcrsig"
#: What a person can read, and what a rule can compare; sent as text beside its digests.
TEXTS = (".cmdline", ".osrel", ".uname", ".pcrpkey")
MAX_BYTES = 1 << 20

Keys = Mapping[Role, Sequence[rsa.RSAPrivateKey]]
Sections = Mapping[str, Sequence[Measured]]


@dataclass(frozen=True)
class Request:
    """What a host asks to be signed: digests of the measured sections by bank, the short ones as text, the signers."""

    sections: Sections
    texts: Mapping[str, str]
    signers: Mapping[Role, tuple[str, ...]]

    def as_dict(self) -> dict[str, object]:
        """Return the request as JSON data."""
        return {
            "sections": {
                bank: [[one.name, one.digest.hex()] for one in measured] for bank, measured in self.sections.items()
            },
            "texts": dict(self.texts),
            "signers": {role.value: list(marks) for role, marks in self.signers.items()},
        }


Requests = Mapping[str, Request]


def ask(image: Image, signers: Mapping[Role, Sequence[rsa.RSAPublicKey]]) -> Request:
    """Return the request for an image without signatures. Raises ImageError when a short section is missing."""
    return Request(
        {bank: measure(image, bank) for bank in BANKS},
        {name: image.content(name).decode("utf-8", errors="replace") for name in TEXTS},
        {role: tuple(map(pcrsig.fingerprint, keys)) for role, keys in signers.items()},
    )


def render_requests(requests: Requests) -> bytes:
    """Return the requests of one host, by the name of the image, as one file for the controller."""
    content = {"apiVersion": API_VERSION, "requests": {name: one.as_dict() for name, one in requests.items()}}
    return json.dumps(content, indent=2).encode() + b"\n"


def parse_requests(text: bytes, where: str) -> dict[str, Request]:
    """Return the requests in a file. Raises SignatureError: malformed, or a text is not what its digest says."""
    try:
        return {name: _request(one) for name, one in _content(text, "requests").items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SignatureError(
            "this is no request for PCR signatures", where=where, why=f"{type(error).__name__}: {error}",
            cure="make a new one on the host: kosmos-boot update",
        ) from None  # fmt: skip


def _content(text: bytes, kind: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    content = json.loads(text)
    if content["apiVersion"] != API_VERSION:
        raise ValueError(f"not of version {API_VERSION}")
    return {str(name): one for name, one in content[kind].items()}


def _request(content: dict[str, Any]) -> Request:
    if set(content["sections"]) != set(BANKS):
        raise ValueError(f"not with the banks {', '.join(BANKS)}")
    sections = {
        bank: tuple(Measured(str(name), bytes.fromhex(digest)) for name, digest in measured)
        for bank, measured in content["sections"].items()
    }
    texts = {str(name): str(value) for name, value in content["texts"].items()}
    signers = {Role(role): tuple(map(str, marks)) for role, marks in content["signers"].items()}
    for bank, measured in sections.items():
        names = [one.name for one in measured]
        if names != [name for name in SECTIONS if name in names]:
            raise ValueError(f"{bank}: the sections are not in the order of measurement, each once")
        if any(len(one.digest) != hashlib.new(bank).digest_size for one in measured):
            raise ValueError(f"{bank}: a digest has the wrong length")
        digests = {one.name: one.digest for one in measured}
        for name in TEXTS:
            if digests.get(name) != hashlib.new(bank, texts.get(name, "").encode()).digest():
                raise ValueError(f"the text of {name} is not what its {bank} digest says")
    return Request(sections, texts, signers)


def answer(requests: Requests, keys: Keys, cmdline: str) -> bytes:
    """Return the signatures for the requests of a host, on the controller. Raises SignatureError: it must not sign.

    It must not when a command line is not the declared one, or when other keys than `keys` are asked for.
    """
    ours = {role: tuple(pcrsig.fingerprint(key.public_key()) for key in held) for role, held in keys.items()}
    answers = {}
    for name, request in requests.items():
        if request.texts[".cmdline"].rstrip("\n") != cmdline:
            raise SignatureError(
                "this image is not signed", where=name, why=f"its command line is: {request.texts['.cmdline']}",
                cure=f"the declared one is: {cmdline}",
            )  # fmt: skip
        if ours != dict(request.signers):
            raise SignatureError(
                "this image is not signed", where=name, why="the host expects other signing keys than these",
                cure="give the keys whose public halves the host has, in a rotation both",
            )  # fmt: skip
        answers[name] = json.loads(pcrsig.render(sign(request.sections, keys)))
    return json.dumps({"apiVersion": API_VERSION, "answers": answers}).encode() + b"\n"


def parse_answers(text: bytes, where: str) -> dict[str, tuple[pcrsig.Entry, ...]]:
    """Return the signatures by the name of the image. Raises SignatureError when it is not the controller's answer."""
    try:
        answers = _content(text, "answers")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SignatureError(
            "this is no answer with PCR signatures", where=where, why=f"{type(error).__name__}: {error}",
            cure="sign the request on the controller: kosmos-boot sign",
        ) from None  # fmt: skip
    return {name: pcrsig.parse(json.dumps(one).encode(), f"{where}: {name}") for name, one in answers.items()}


def sign(sections: Sections, keys: Keys) -> list[pcrsig.Entry]:
    """Return the signatures of every key, for the phases of its role, in each bank."""
    entries = []
    for role in Role:
        for key in keys.get(role, ()):
            for bank, measured in sections.items():
                signed = policies(measured, bank, role.paths)
                entries += [pcrsig.sign(policy, bank, key) for policy in signed.values()]
    return entries


def sign_image(image: Image, keys: Keys) -> list[pcrsig.Entry]:
    """Return the signatures for an image, on the host that has the keys."""
    return sign({bank: measure(image, bank) for bank in BANKS}, keys)


def join(image: Image, entries: Sequence[pcrsig.Entry]) -> bytes:
    """Return the image with these signatures, in place of those that it had.

    Raises ImageError as `pe.with_last_section` does, and SignatureError when a signature is for another image.
    """
    measured = measure(image, UNLOCK_BANK)
    mine = set(policies(measured, UNLOCK_BANK, Role.ALL.paths).values())
    foreign = [one for one in entries if one.bank == UNLOCK_BANK and one.policy not in mine]
    if foreign or not entries:
        raise SignatureError(
            "these signatures are not for this image", where=image.label,
            why=f"policy {foreign[0].policy.hex()[:12]} is not predicted for it" if foreign else "there are none",
            cure="ask for signatures of this image: kosmos-boot update",
        )  # fmt: skip
    return with_last_section(image, SECTION, pcrsig.render(entries))


def unsigned_by(image: Image, signers: Mapping[Role, Sequence[rsa.RSAPublicKey]]) -> list[str]:
    """Return the fingerprints of the keys that have not signed every phase of their role in the bank that unlocks."""
    entries = pcrsig.parse(image.content(SECTION), image.label) if SECTION in image.names else ()
    lacking = []
    for role, keys in signers.items():
        needed = set(policies(measure(image, UNLOCK_BANK), UNLOCK_BANK, role.paths).values())
        for key in keys:
            signed = {one.policy for one in entries if one.bank == UNLOCK_BANK and pcrsig.verify(one, key)}
            if not needed <= signed:
                lacking.append(pcrsig.fingerprint(key))
    return lacking
