"""What is said about the boot that runs now: is it healthy enough to be blessed, and what must the owner know."""

from __future__ import annotations

from . import rotate
from .errors import BootError
from .findings import Finding, Verdict
from .host import Host
from .state import State
from .update import Updater

BAD_INITRD = "Initramfs unpacking failed"
#: What systemd-stub hands over and systemd-tmpfiles copies (systemd-stub(7)); without it nothing unlocks later.
HANDED = ("run/systemd/tpm2-pcr-signature.json", "run/systemd/tpm2-pcr-public-key.pem")
UP = ("running", "degraded", "starting")
SIGNING = {
    "controller": "on the controller",
    "host": "on this host: THE WEAKER MODE, it protects against changes from outside and not against root",
}
_LOOK = "read the journal of this boot; when this image has no tries left, the one before it starts"


def health(host: Host) -> Verdict:
    """Judge the running system before it is blessed: what an image that cannot unlock looks like from inside."""
    broken = host.run(["dmesg", "--notime"]).stdout.count(BAD_INITRD)
    missing = [name for name in HANDED if not (host.root / name).is_file()]
    closed = [one.device for one in host.config.volumes if not _open(host, one.device)]
    state = host.run(["systemctl", "is-system-running"]).stdout.strip()
    rules = (
        ("initrd", "The kernel could unpack the whole initrd", not broken, f"'{BAD_INITRD}' {broken} times", "never"),
        ("signature", "The stub has handed over the PCR signatures", not missing, _names(missing), "both files"),
        ("volumes", "Every declared volume is open", not closed, _names(closed), "each with a mapping above it"),
        ("system", "The system has come up", state in UP, state or "no answer", " or ".join(UP)),
    )
    findings = (Finding(f"boot.health.{name}", what, ok, found, need, _LOOK) for name, what, ok, found, need in rules)
    return Verdict("this boot", tuple(findings))


def _names(missing: list[str]) -> str:
    return f"missing: {', '.join(missing)}" if missing else "all of them"


def _open(host: Host, device: str) -> bool:
    """Tell whether a LUKS device has a mapping above it."""
    done = host.run(["lsblk", "--noheadings", "--output", "TYPE", device])
    return done.code == 0 and "crypt" in done.stdout.split()


def status(host: Host, state: State) -> Verdict:
    """Say what the owner must know about the boot of this host; a broken rule is something to do."""
    entries, default, booted = host.esp.entries(), host.esp.default(), host.booted
    newest = entries[0] if entries else None
    fell_back = newest is not None and newest.id != booted and newest.state != "trying"
    refused, due, rotation = _refused(state), _due(host, state), _rotation(state)
    waits = state.waiting()
    rules = (
        (
            "default", "There is an image that starts", default is not None and default.state != "bad",
            f"{default.id} ({default.state})" if default else "none", "an image that is not bad", "kosmos-boot update",
        ),
        (
            "fallback", "The newest image runs, or waits for its first start", not fell_back,
            f"running: {booted or 'none of ours'}; newest: {newest.id if newest else 'none'}", "the newest image",
            "it did not come up: read journalctl --boot=-1, then run kosmos-boot update",
        ),
        (
            "update", "The last update was not refused", not refused, ", ".join(refused) or "no refusal",
            "a verdict without broken rules", "run kosmos-boot update: it shows each rule with its cure",
        ),
        (
            "current", "The default image is the one that should be", due is None, due or "it is",
            "newest kernel, declared command line, our keys", "kosmos-boot update",
        ),
        (
            "waiting", "Nothing waits for signatures", not waits, ", ".join(waits) or "nothing",
            "nothing", "kosmos-boot sign on the controller, then here: kosmos-boot update --signatures FILE",
        ),
        (
            "rotation", "No rotation of keys is unfinished", rotation is None, rotation or "none", "none",
            "kosmos-boot rotate-key",
        ),
        (
            "signing", "The signing keys are where boot.signing says", True, SIGNING[host.config.signing],
            "controller or host", "set boot.signing",
        ),
    )  # fmt: skip
    findings = (Finding(f"boot.status.{name}", what, ok, *told) for name, what, ok, *told in rules)
    return Verdict("the boot of this host", tuple(findings))


def _refused(state: State) -> list[str]:
    verdict = state.verdict() or {"findings": []}
    return [str(one.get("id")) for one in verdict.get("findings", []) if not one.get("passed")]


def _due(host: Host, state: State) -> str | None:
    try:
        return "another kernel, command line or key is due" if Updater(host, state).needed() else None
    except BootError as error:
        return str(error)


def _rotation(state: State) -> str | None:
    try:
        journal = rotate.read(state.rotation)
    except BootError as error:
        return str(error)
    return f"step {journal.step.value} is due" if journal else None
