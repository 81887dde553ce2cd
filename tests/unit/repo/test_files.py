"""What no tracked file may hold: addresses of package registries, and paths of the machine that it was written on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from repo import ROOT, tracked

# Built from parts, so that this file passes its own test.
REGISTRIES = {
    ".".join(parts)
    for parts in (
        ("deb", "debian", "org"), ("security", "debian", "org"), ("ftp", "debian", "org"), ("pypi", "org"),
        ("files", "pythonhosted", "org"), ("registry", "npmjs", "org"), ("galaxy", "ansible", "com"),
        ("proxy", "golang", "org"),
    )
}  # fmt: skip
# The lock names the upstream address of every artefact; that is its purpose.
ALLOWED = {Path("artifacts.lock.yml")}


def configured_hosts() -> Iterator[str]:
    """Yield the hosts that this machine's own apt and pip are pointed at."""
    for command in (["apt-get", "indextargets", "--format", "$(REPO_URI)"], ["python3", "-m", "pip", "config", "list"]):
        try:
            told = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        except FileNotFoundError:
            continue
        for address in re.findall(r"https?://[^\s'\"]+", told):
            yield urlsplit(address).hostname or ""


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every tracked text file."""
    for path in tracked():
        full = ROOT / path
        if full.is_symlink() or path in ALLOWED:
            continue
        data = full.read_bytes()
        if b"\0" not in data:
            yield path, data.decode("utf-8")


def test_no_registry_address() -> None:
    forbidden = REGISTRIES | {host for host in configured_hosts() if "." in host}
    found = [f"{path}: {host}" for path, text in texts() for host in forbidden if host in text]
    assert not found


def test_no_path_of_this_machine() -> None:
    here = str(ROOT)
    if len(ROOT.parts) < 3:
        pytest.skip(f"the checkout is at {here}, a path too short to look for")
    assert not [path for path, text in texts() if f"{here}/" in text or f"{here}\n" in text]


def test_links_stay_inside() -> None:
    for path in tracked():
        if (ROOT / path).is_symlink():
            target = (ROOT / path).readlink()
            assert not target.is_absolute(), path
            assert (ROOT / path).resolve().is_relative_to(ROOT), path
