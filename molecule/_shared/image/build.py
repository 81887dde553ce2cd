#!/usr/bin/env python3
"""Build the image of the role test bed unless it is there, and print its name.

A Debian 13 machine with systemd and sshd, in which the roles' packages are installed. The name carries a hash of all
that goes in (package lists, files, this program, the week), so an unchanged bed is built once.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from kosmos_installer.errors import KosmosError  # noqa: E402  (the line above makes them importable)
from kosmos_installer.lab import mirror  # noqa: E402

BED_PACKAGES = HERE.parent / "packages.txt"
REPOSITORY = "localhost/kosmos-bed"
KEPT_IMAGES = 3
PACKAGE_LIST = re.compile(r"kosmos_packages\w*|__\w+_own_packages")


def listed(text: str) -> list[str]:
    """Return the words of a one-per-line list, without comments."""
    return [line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip()]


def role_packages() -> set[str]:
    """Return what the roles install: `kosmos_packages*` of the playbooks and `__<role>_own_packages` of the roles."""
    found: set[str] = set()
    for path in (*ROOT.glob("playbooks/group_vars/all/*.yml"), *ROOT.glob("roles/*/vars/main.yml")):
        for name, value in (yaml.safe_load(path.read_text()) or {}).items():
            if PACKAGE_LIST.fullmatch(name) and isinstance(value, list):
                found.update(value)
    return found


def image_name(packages: set[str]) -> str:
    """Return repository:tag, the tag being a hash of all inputs. A new week brings new packages."""
    year, week, _ = datetime.datetime.now(tz=datetime.UTC).isocalendar()
    digest = hashlib.sha256(f"{mirror.SUITE} {year}w{week} {sorted(packages)}".encode())
    for path in sorted(p for p in HERE.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{REPOSITORY}:{digest.hexdigest()[:16]}"


def build(packages: set[str], name: str, cache: Path) -> None:
    """Make the root file system with mmdebstrap and import it into podman as `name`."""
    archive = mirror.of_this_machine()
    with tempfile.TemporaryDirectory(prefix="kosmos-bed-") as work:
        tree = Path(work) / "bed.tar"
        command = [
            "mmdebstrap", "--quiet", "--variant=apt", "--mode=root",
            "--skip=download/empty", "--skip=essential/unlink", "--skip=cleanup/apt/lists",
            '--aptopt=Apt::Install-Recommends "false"', "--dpkgopt=force-unsafe-io",
            *(f"--aptopt={setting.rstrip(';')}" for setting in archive.settings),
            '--setup-hook=mkdir -p "$1"/var/cache/apt/archives',
            f"--setup-hook=sync-in {cache} /var/cache/apt/archives/",
            f"--include={','.join(sorted(packages))}",
            f"--customize-hook=sync-out /var/cache/apt/archives {cache}",
            f'--customize-hook={HERE}/customize "$1"',
            mirror.SUITE, str(tree), *archive.sources,
        ]  # fmt: skip
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            raise SystemExit("mmdebstrap could not build the bed's root; its messages are above")
        subprocess.run(["podman", "import", "--quiet", str(tree), name], check=True, stdout=sys.stderr)


def prune() -> None:
    """Remove all but the newest images of the bed; one that a container still uses stays."""
    listing = ["podman", "images", "--sort", "created", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY]
    names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    for name in names[KEPT_IMAGES:]:
        subprocess.run(["podman", "rmi", name], check=False, capture_output=True)


def main() -> int:
    """Build if needed; the only line on standard output is the image's name."""
    missing = [program for program in ("podman", "runc", "mmdebstrap") if not shutil.which(program)]
    if missing:
        raise SystemExit(f"missing programs: {', '.join(missing)} (tools/install-debian-packages installs them)")
    packages = {*listed(BED_PACKAGES.read_text())} | role_packages()
    name = image_name(packages)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kosmos" / "bed-debs"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache.parent / "bed.lock").open("w") as lock:
        # Scenarios may start side by side: the first builds, the others wait and find it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if subprocess.run(["podman", "image", "exists", name], check=False).returncode:
            build(packages, name, cache)
            prune()
    print(name)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KosmosError as error:
        sys.exit(str(error))
