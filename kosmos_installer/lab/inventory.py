"""Give a lab its inventory in the current folder, from the packaged one of the lab named `lab`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

TEMPLATE = "lab"


def rename(text: str, name: str) -> str:
    """Return the template's text with the lab's name in the host name, the ssh_config path and `kosmos.name`."""
    return (
        text.replace(f"kosmos-{TEMPLATE}", f"kosmos-{name}")
        .replace(f"/labs/{TEMPLATE}/", f"/labs/{name}/")
        .replace(f"name: {TEMPLATE}\n", f"name: {name}\n")
        .replace(f"name: {TEMPLATE} ", f"name: {name} ")
    )


def ensure(folder: Path, name: str, shipped: Path) -> Path | None:
    """Create `folder`/inventories/`name` unless it exists; return its path when it was created."""
    target = folder / "inventories" / name
    if target.exists():
        return None
    source = shipped / TEMPLATE
    partial = target.with_name(f".{name}.{os.getpid()}")
    for file in sorted(source.rglob("*")):
        if file.is_file():
            place = partial / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(rename(file.read_text(), name))
    try:
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial)
        if not target.exists():
            raise
        return None
    return target
