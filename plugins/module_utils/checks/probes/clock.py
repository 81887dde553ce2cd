"""Probe: is the clock sane? Compared with the controller, with a build date, and with what the disk remembers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind, ProbeError

#: What a running system keeps touching. Three of them must agree: one short step of the clock leaves a few stamps in
#: the future, a clock that went back years has nearly all of them there.
WITNESSES = (
    "/boot",
    "/etc",
    "/usr/bin",
    "/var/cache/apt",
    "/var/lib/apt/lists",
    "/var/lib/dpkg/info",
    "/var/lib/dpkg/status",
    "/var/lib/systemd/timers",
    "/var/log",
)
AGREE = 3


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def clock(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell how the clock compares, in whole seconds, or whether it is synchronised."""
    attribute, now = str(args["attribute"]), host.now()
    if attribute == "synchronised":
        done = host.command(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
        if done.rc != 0:
            raise ProbeError(f"timedatectl: {done.stderr.strip() or 'not installed'}")
        return Found(done.stdout.strip() == "yes", "timedatectl: NTPSynchronized")
    if attribute == "skew_seconds":
        if host.reference_time is None:
            raise ProbeError("the controller handed over no time")
        other, what = host.reference_time, "controller"
        return Found(abs(round(now - other)), f"host {_moment(now)}, {what} {_moment(other)}")
    if attribute == "seconds_since":
        if args["date"] is None:
            raise ProbeError("the attribute seconds_since needs the argument date")
        floor = dt.datetime.combine(dt.date.fromisoformat(str(args["date"])), dt.time(), dt.UTC).timestamp()
        return Found(round(now - floor), f"host {_moment(now)}, against {args['date']}")
    newest, witness = sorted(((_changed(host, path), path) for path in WITNESSES), reverse=True)[AGREE - 1]
    return Found(max(0, round(newest - now)), f"host {_moment(now)}; {witness} and {AGREE - 1} more: {_moment(newest)}")


def _changed(host: Host, path: str) -> float:
    try:
        return host.path(path).stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return 0.0


KINDS = {
    "time": Kind(
        clock,
        "The clock. `skew_seconds`: distance to the controller's; `seconds_since` a date (negative: before it);"
        " `behind_disk_seconds`: how far in the future files were written (three witnesses);"
        " `synchronised`: true or false.",
        (
            Arg(
                "attribute",
                "what to tell",
                required=True,
                choices=("synchronised", "skew_seconds", "seconds_since", "behind_disk_seconds"),
            ),
            Arg("date", "YYYY-MM-DD (for seconds_since)", default=None),
        ),
        rooted=False,
    ),
}
