"""Everything that somebody who helps from afar needs, in one archive without secrets."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kosmos_installer import __version__, record
from kosmos_installer.redact import Redactor

NEWEST_RECORDS = 5
_LARGEST_FILE = 20_000_000  # bytes; a larger log keeps its end
_PACKAGES = ("ansible-core", "ansible-runner", "cryptography", "jinja2", "pydantic", "pyyaml", "rich", "typer")
_FACTS = "!all,!min,date_time,distribution,dns,hardware,mounts,network,pkg_mgr,platform,python,service_mgr,virtual"
_SECONDS = 60


@dataclass(frozen=True)
class Source:
    """What goes into the bundle. configuration: folder of the inventory."""

    name: str
    runs: Path
    configuration: Path
    environment: Mapping[str, str]
    redactor: Redactor


def write(source: Source, target: Path, now: datetime) -> list[str]:
    """Write the archive to `target` (0600, whole or not at all); give back the names of the files in it."""
    draft = target.with_name(f".{target.name}.new")
    names = []
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with tarfile.open(draft, "w:gz") as archive:
        for name, text in _files(source):
            content = source.redactor.text(text).encode()
            entry = tarfile.TarInfo(f"kosmos-support-{source.name}/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(now.timestamp())
            archive.addfile(entry, io.BytesIO(content))
            names.append(name)
    draft.replace(target)
    return names


def _files(source: Source) -> Iterator[tuple[str, str]]:
    yield "versions.json", _json(versions())
    yield "host-facts.txt", _facts(source)
    for path in sorted(source.configuration.rglob("*")):
        if path.is_file() and path.suffix in {".yml", ".yaml", ".ini", ".cfg"}:
            yield f"inventory/{path.relative_to(source.configuration)}", _yaml_without_secrets(source, path)
    for past in record.history(source.runs)[:NEWEST_RECORDS]:
        for path in sorted(past.folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                yield f"runs/{past.folder.name}/{path.name}", _tail(path)


def versions() -> dict[str, Any]:
    """What is installed on this machine."""
    return {
        "kosmos-install": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _facts(source: Source) -> str:
    """What Ansible sees on the hosts. A host that cannot be reached is a finding too."""
    argv = ["ansible", "appliance", "-i", str(source.configuration), "-m", "ansible.builtin.setup"]
    argv += ["-a", f"gather_subset={_FACTS}", "--timeout", "10"]
    try:
        done = subprocess.run(
            argv,
            env={**source.environment, "ANSIBLE_NOCOLOR": "True"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"The facts could not be read: {error}\n"
    return done.stdout + done.stderr


def _yaml_without_secrets(source: Source, path: Path) -> str:
    """Values under secret keys go line by line, so that comments and layout stay."""
    return source.redactor.text(_tail(path))


def _tail(path: Path) -> str:
    with suppress(OSError), path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _LARGEST_FILE))
        return stream.read().decode(errors="replace")
    return ""


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
