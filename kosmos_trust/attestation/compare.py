"""Compare one boot with references, and name what differs: PCR, bank, event, found, expected."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from ..eventlog import DIGEST_SIZES
from .logs import PCR_BOOT_LOADER, Measured, MeasuredBoot
from .policy import Firmware, Image, Reference, State
from .quote import Values
from .refusal import Reason
from .words import PCRS


def unexplained(boot: MeasuredBoot, values: Values) -> list[Reason]:
    """Return a reason for each quoted PCR whose value the logs do not give."""
    reasons = []
    for bank, quoted in values.items():
        replayed = boot.replay(bank)
        for pcr, value in quoted.items():
            if replayed[pcr] == value:
                continue
            events = boot.of(pcr)
            held = _prefix(events, bank, value)
            if held is None:
                event, words = None, "the logs do not explain this PCR: an event is missing, altered or out of order"
            else:
                event, words = events[held].words, f"the logs hold {len(events) - held} events more than the TPM"
            reasons.append(Reason("log.replay", words, pcr, bank, event, value.hex(), replayed[pcr].hex()))
    return reasons


def against_firmware(boot: MeasuredBoot, values: Values, approved: Firmware) -> list[Reason]:
    """Return a reason for each PCR that is not in the approved state."""
    return [
        reason
        for pcr, state in approved.pcrs.items()
        for reason in _against_states("firmware.pcr", boot, values, pcr, (state,))
    ]


def against_image(boot: MeasuredBoot, values: Values, image: Image) -> list[Reason]:
    """Return a reason for each PCR in none of its accepted states, and for the first program that should not run."""
    reasons = list(_against_launches(boot, image.launches)) if image.launches else []
    for pcr, states in image.pcrs.items():
        reasons += _against_states("image.pcr", boot, values, pcr, states)
    return reasons


def _against_states(
    code: str, boot: MeasuredBoot, values: Values, pcr: int, states: Sequence[State]
) -> Iterator[Reason]:
    # Both banks have to be in the same state: two halves of two states are neither.
    if any(all(values[bank][pcr] == value for bank, value in state.values.items()) for state in states):
        return
    found = {bank: values[bank][pcr] for bank in states[0].values}
    nearest = max(states, key=lambda state: _agreeing(boot.of(pcr), state))
    bank = next(bank for bank, value in found.items() if value != nearest.values[bank])
    event, expected = _culprit(boot.of(pcr), nearest, bank)
    expected = expected or f"{' or '.join(state.words for state in states)}: {nearest.values[bank].hex()}"
    words = f"{PCRS.get(pcr, 'PCR')}: not in an accepted state"
    yield Reason(code, words, pcr, bank, event, found[bank].hex(), expected)


def _agreeing(events: Sequence[Measured], state: State) -> int:
    """Return how many events from the start agree with a state's events."""
    pairs = zip(events, state.events, strict=False)
    return next((number for number, pair in enumerate(pairs) if not _is(*pair)), min(len(events), len(state.events)))


def _is(entry: Measured, reference: Reference) -> bool:
    return all(entry.event.digests.get(bank) == value for bank, value in reference.values.items())


def _culprit(events: Sequence[Measured], state: State, bank: str) -> tuple[str | None, str | None]:
    """Return the first event that should not be there in words, and what should: each None where it cannot be told."""
    if state.events:
        agreed = _agreeing(events, state)
        expected = state.events[agreed] if agreed < len(state.events) else None
        told = f"{expected.words}: {expected.values[bank].hex()}" if expected else "nothing more"
        return (events[agreed].words if agreed < len(events) else "nothing more was measured"), told
    held = _prefix(events, bank, state.values[bank])
    return (events[held].words if held is not None else None), None


def _prefix(events: Sequence[Measured], bank: str, value: bytes) -> int | None:
    """Return after how many events, fewer than all, a PCR that starts at zero holds this value."""
    current = bytes(DIGEST_SIZES[bank])
    for number, entry in enumerate(events):
        if current == value:
            return number
        current = hashlib.new(bank, current + entry.event.digests.get(bank, b"")).digest()
    return None


def _against_launches(boot: MeasuredBoot, expected: Sequence[Reference]) -> Iterator[Reason]:
    waiting = list(expected)
    for entry in boot.programs():
        if not waiting or not _is(entry, waiting[0]):
            yield _launch(entry.words, entry.event.digests, waiting)
            return
        waiting.pop(0)
    if waiting:
        yield _launch("nothing more was started", {}, waiting)


def _launch(event: str, digests: Mapping[str, bytes], waiting: Sequence[Reference]) -> Reason:
    if not waiting:
        bank, value = next(iter(digests.items()))
        return Reason("image.launch", "a program too many", PCR_BOOT_LOADER, bank, event, value.hex(), "nothing more")
    bank = next((name for name, value in waiting[0].values.items() if digests.get(name) != value), "")
    told = f"{waiting[0].words}: {waiting[0].values[bank].hex()}"
    found = digests[bank].hex() if bank in digests else None
    return Reason("image.launch", "another program than expected", PCR_BOOT_LOADER, bank, event, found, told)
