"""What a run did, or in check mode would do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Action(StrEnum):
    """What is to be done for an agent."""

    NONE = "none"
    ENROL = "enrol"  # there is no certificate
    RENEW = "renew"  # it is due, or not what is wanted
    INSTALL = "install"  # a good certificate is there that the service refused before
    RESUME = "resume"  # a run was cut
    WAIT = "wait"  # a person has to approve at the authority
    RETIRE = "retire"  # an older certificate is to be revoked


@dataclass(frozen=True)
class Outcome:
    """The result of `Enroller.run` and `Enroller.check`.

    `serial`, `renew_at` and `days_left` are of the certificate in use afterwards (in check mode: now); `before` and
    `after` are the two sides of a diff: serial, dates, names.
    """

    changed: bool
    action: Action
    reasons: tuple[str, ...] = ()
    serial: str = ""
    renew_at: datetime | None = None
    days_left: float | None = None
    before: str = ""
    after: str = ""
    warnings: tuple[str, ...] = field(default=())
