"""Probes over the package manager: what is installed, who holds its locks, which names it must resolve."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes.files import expand, settings

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")


SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources")
ADDRESS = re.compile(r"\bhttps?://[^\s\"';]+")


def package(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the installed version of a Debian package; absent when it is not fully installed."""
    version = host.once("dpkg", lambda: _installed(host)).get(str(args["name"]))
    return Found(version, f"/var/lib/dpkg/status: {args['name']}")


def _stanzas(host: Host) -> list[dict[str, str]]:
    text = host.data("/var/lib/dpkg/status", limit=64 * 1024 * 1024) or b""
    rows = (
        dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        for stanza in text.decode("utf-8", "replace").split("\n\n")
    )
    return [row for row in rows if "Package" in row]


def _installed(host: Host) -> dict[str, str]:
    rows = host.once("dpkg-stanzas", lambda: _stanzas(host))
    good = (row for row in rows if row.get("Status", "").split()[-1:] == ["installed"])
    return {row["Package"]: row.get("Version", "") for row in good}


def packages(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the packages that dpkg left half done, or those of the list that are missing or present."""
    rows = host.once("dpkg-stanzas", lambda: _stanzas(host))
    if args["attribute"] in {"half_done", "journal"} and args["unless"] and host.path(args["unless"]).exists():
        return Found([], f"{args['unless']}: a package run of ours was cut off, and the next apply finishes it")
    if args["attribute"] == "journal":
        return Found(sorted(expand(host, "/var/lib/dpkg/updates/[0-9]*")), "/var/lib/dpkg/updates")
    if args["attribute"] == "half_done":
        settled = {"installed", "config-files", "not-installed"}
        broken = [row["Package"] for row in rows if row.get("Status", "x").split()[-1] not in settled]
        return Found(sorted(broken), "/var/lib/dpkg/status")
    known, wanted = host.once("dpkg", lambda: _installed(host)), args["attribute"] == "present"
    return Found(sorted(name for name in args["names"] if (name in known) == wanted), "/var/lib/dpkg/status")


def apt_lock(host: Host, args: Mapping[str, Any]) -> Found:  # noqa: ARG001 - every probe has this shape
    """Tell which process holds a lock of apt or dpkg: "name (pid N) holds PATH", or absent."""
    rows = [line.split() for line in (host.text("/proc/locks") or "").splitlines()]
    for path in LOCKS:
        try:
            status = host.path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for row in rows:
            if len(row) > 5 and row[1] != "->" and row[5] == device:
                name = (host.text(f"/proc/{row[4]}/comm") or "a process").strip()
                return Found(f"{name} (pid {row[4]}) holds {path}", "/proc/locks")
    return Found(None, f"/proc/locks: nobody holds {', '.join(LOCKS)}")


def apt_names(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the host names of the package sources that do not resolve; behind a proxy, only the proxy's must."""
    proxies = host.command(["apt-config", "dump", "Acquire::http", "Acquire::https"]).stdout.splitlines()
    texts = [line for line in proxies if "Proxy" in line]
    if not any(ADDRESS.search(text) for text in texts):
        files = [path for pattern in SOURCES for path in expand(host, pattern)]
        texts = [line for path in files for line in settings(host.text(path) or "")]
    addresses = [address for text in texts for address in ADDRESS.findall(text)]
    names = sorted({name for address in addresses if (name := urllib.parse.urlsplit(address).hostname)})
    lost = [name for name in names if not _is_address(name) and not _resolves(host, name, args)]
    return Found(lost, f"getent ahosts {' '.join(names)}" if names else "the package sources name no host")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _resolves(host: Host, name: str, args: Mapping[str, Any]) -> bool:
    return host.command(["getent", "ahosts", name], float(args["timeout_seconds"])).rc == 0


NAME = Arg("name", "name", required=True)
KINDS = {
    "package": Kind(package, "The installed version of a Debian package.", (NAME,), rooted=True),
    "packages": Kind(
        packages,
        "A list: packages left half done, files of dpkg's own journal, or which of `names` are missing or present.",
        (
            Arg("attribute", "what to tell", required=True, choices=("half_done", "journal", "missing", "present")),
            Arg("names", "packages to look for (missing, present)", type="list", default=[]),
            Arg("unless", "a file that excuses what was left (half_done, journal)", default=""),
        ),
        rooted=True,
    ),
    "apt_lock": Kind(apt_lock, "Who holds a lock of apt or dpkg; absent when nobody.", (), rooted=True),
    "apt_names": Kind(
        apt_names,
        "List of host names in the package sources (or of the proxy) that do not resolve.",
        (Arg("timeout_seconds", "longest wait for one name", type="float", default=10),),
        rooted=False,
    ),
}
