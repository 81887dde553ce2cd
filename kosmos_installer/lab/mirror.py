"""The Debian archive that this machine already uses, read from its own apt configuration."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kosmos_installer.errors import ExitCode, KosmosError

SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Settings of the machine that decide whether its archive can be used at all; proxies and credentials travel in
# apt's own environment and are not copied into an image.
_CARRIED = re.compile(r'^(Acquire::(?:Check-Valid-Until|Check-Date|Retries|https?::Timeout)) "(.*)";$')


@dataclass(frozen=True)
class Mirror:
    """One-line sources (`deb URI SUITE COMPONENTS`) and apt settings, both for Debian 13."""

    sources: tuple[str, ...]
    settings: tuple[str, ...]


def translate(targets: str, codename: str, suite: str = SUITE) -> tuple[str, ...]:
    """Turn `apt-get indextargets` lines (`URI RELEASE COMPONENT`) of this Debian into sources of `suite`.

    Only the release itself, its updates and its security archive count; order and components are kept.
    """
    wanted = {codename + ending: suite + ending for ending in ("", "-updates", "-security")}
    found: dict[tuple[str, str], list[str]] = {}
    for line in targets.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in wanted:
            components = found.setdefault((fields[0], wanted[fields[1]]), [])
            if fields[2] not in components:
                components.append(fields[2])
    return tuple(f"deb {uri.rstrip('/')} {release} {' '.join(parts)}" for (uri, release), parts in found.items())


def carried(dump: str) -> tuple[str, ...]:
    """Return the lines of `apt-config dump` that an image needs to read the same archive."""
    return tuple(line for line in dump.splitlines() if _CARRIED.match(line))


def codename(os_release: str) -> str:
    """Return VERSION_CODENAME of an os-release text, or an empty string."""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', os_release, re.MULTILINE)
    return match.group(1) if match else ""


def of_this_machine(os_release: Path = Path("/etc/os-release")) -> Mirror:
    """Read the machine's apt configuration.

    Raises `KosmosError` (exit code 2) when it names no Debian archive.
    """
    here = codename(os_release.read_text())
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    sources = translate(targets, here)
    if not any(line.split()[2] == SUITE for line in sources):
        raise KosmosError(
            "No Debian archive is configured on this machine",
            where="/etc/apt/sources.list and /etc/apt/sources.list.d",
            why=f"no source has the suite '{here}', so the archive for '{SUITE}' cannot be derived from it",
            cure="add the Debian archive to the apt configuration and run 'apt-get update'",
            exit_code=ExitCode.USAGE,
        )
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    return Mirror(sources, carried(dump))
