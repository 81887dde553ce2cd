"""Make references from a boot whose quote was believed: to approve a firmware, or to write down a known good image.

An update transaction computes its references itself, before any boot (PE hashes, systemd-measure). These functions are
for what nobody can compute beforehand: the firmware of one machine, as a person has looked at it and approves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .logs import PCR_BOOT_LOADER, Measured, MeasuredBoot
from .policy import Firmware, Image, Reference, State
from .quote import Values


def state_of(boot: MeasuredBoot, values: Values, pcr: int, words: str) -> State:
    """Return the state in which one PCR is, with the events that lead there."""
    events = tuple(_reference(entry) for entry in boot.of(pcr))
    return State(words, {bank: pcrs[pcr] for bank, pcrs in values.items()}, events)


def firmware_of(boot: MeasuredBoot, values: Values, pcrs: Iterable[int], name: str) -> Firmware:
    """Return the state of the firmware PCRs, to be added to a policy's `firmware` once a person approves it."""
    return Firmware(name, {pcr: state_of(boot, values, pcr, name) for pcr in pcrs})


def image_of(boot: MeasuredBoot, values: Values, pcrs: Sequence[int], name: str) -> Image:
    """Return the image that booted: the programs in PCR 4, and the literal state of other PCRs."""
    states = {pcr: (state_of(boot, values, pcr, name),) for pcr in pcrs if pcr != PCR_BOOT_LOADER}
    return Image(name, states, tuple(_reference(entry) for entry in boot.programs()))


def _reference(entry: Measured) -> Reference:
    return Reference(entry.words, dict(entry.event.digests))
