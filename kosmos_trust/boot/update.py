"""From an installed kernel to a published image: build, sign, judge, publish. Until the last step the old one stays."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from kosmos_trust import durable

from . import build, pe, signing
from .errors import BootError, SignatureError
from .esp import Entry
from .findings import Verdict
from .gate import judge
from .host import Host
from .prediction import measure
from .state import State

#: How the image in preparation is called in requests and answers.
NAME = "update"


class Outcome(Enum):
    """What an update came to."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    WAITING = "waiting"
    REFUSED = "refused"


@dataclass(frozen=True)
class Result:
    """The outcome; the verdict that was passed, the entry that was published, the file that must be signed, if any."""

    outcome: Outcome
    verdict: Verdict | None = None
    entry: Entry | None = None
    to_sign: Path | None = None


class Updater:
    """Updates the boot of one host. The caller holds the lock of `state`."""

    def __init__(self, host: Host, state: State) -> None:
        self.host, self.state = host, state

    def needed(self) -> bool:
        """Tell whether the default image is not the one that it should be: kernel, command line, keys, signatures."""
        default = self.host.esp.default()
        if default is None or default.state == "bad":
            return True
        data = default.path.read_bytes()
        if not judge(data, default.id, self.host.expectation(None)).passed:
            return True
        return pe.parse(data, default.id).text(".uname") != build.newest_kernel(self.host.root / "boot")

    def update(self, parts: build.Parts) -> Result:
        """Build an image of `parts` and bring it as far as it goes: in mode `controller` that is a request.

        Raises BootError when a program fails; nothing is published then.
        """
        self.host.esp.sweep()
        self.state.requests.unlink(missing_ok=True)
        unsigned = build.build(parts, self.state.staging, self.host.run)
        default = self.host.esp.default()
        if default is not None and default.state != "bad" and self._same(unsigned, default):
            return self._end(Result(Outcome.UNCHANGED))
        if self.host.config.signing == "controller":
            request = signing.render_requests({NAME: signing.ask(unsigned, self.host.signers())})
            durable.replace(self.state.requests, request)
            self.state.note("request", kernel=parts.version)
            return Result(Outcome.WAITING, to_sign=self.state.requests)
        entries = signing.sign_image(unsigned, self.host.private_keys())
        return self._publish(signing.join(unsigned, entries))

    def finish(self, answer: bytes, where: str) -> Result:
        """Join the controller's answer to the image in preparation, and publish it.

        Raises SignatureError when nothing waits for it, or when it is for another image.
        """
        entries = signing.parse_answers(answer, where).get(NAME)
        waiting = self.state.staging / "unsigned.efi"
        if entries is None or not self.state.requests.exists() or not waiting.exists():
            raise SignatureError(
                "no image is waiting for these signatures", where=where, cure="make a request: kosmos-boot update"
            )
        return self._publish(signing.join(pe.read(waiting), entries))

    def take(self, image: bytes) -> Result:
        """Publish an image that was signed elsewhere, when the gate lets it pass."""
        return self._publish(image, signed=True)

    def _same(self, unsigned: pe.Image, default: Entry) -> bool:
        data = default.path.read_bytes()
        if not judge(data, default.id, self.host.expectation(None)).passed:
            return False
        return measure(pe.parse(data, default.id)) == measure(unsigned)

    def _publish(self, data: bytes, *, signed: bool = False) -> Result:
        secure = self.host.config.secure_boot
        if secure is not None and secure.key is None and not signed:
            durable.replace(self.state.for_secure_boot, data)
            return self._end(Result(Outcome.WAITING, to_sign=self.state.for_secure_boot))
        image = data if signed else self.host.sign_for_secure_boot(data)
        verdict = judge(image, NAME, self.host.expectation(len(image)))
        self.state.decided(verdict.as_dict())
        if not verdict.passed:
            self.state.note("refused", rules=[one.id for one in verdict.failures])
            return self._end(Result(Outcome.REFUSED, verdict))
        kernel = pe.parse(image, NAME).text(".uname")
        self.host.esp.configure()
        entry = self.host.esp.publish(image, kernel, self.host.booted)
        self.state.note("published", image=entry.id, kernel=kernel)
        return self._end(Result(Outcome.PUBLISHED, verdict, entry))

    def _end(self, result: Result) -> Result:
        """Forget the image in preparation, once it is decided upon."""
        self.state.requests.unlink(missing_ok=True)
        if result.to_sign is None:
            self.state.for_secure_boot.unlink(missing_ok=True)
        shutil.rmtree(self.state.staging, ignore_errors=True)
        return result


def parts_of(host: Host, version: str | None = None) -> build.Parts:
    """Return what the next image of this host is made of. Raises BootError when there is no kernel or no key."""
    if not host.public_for_images.is_file():
        raise BootError(
            "the public signing key is missing",
            where=str(host.public_for_images),
            cure="apply the role host_boot again",
        )
    boot = host.root / "boot"
    chosen = version or build.newest_kernel(boot)
    public_key, os_release = host.public_for_images, host.root / "etc/os-release"
    stub = host.root / build.STUB.relative_to("/")
    return build.Parts(chosen, host.config.cmdline, public_key, boot, os_release, stub)
