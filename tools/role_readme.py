#!/usr/bin/env python3
"""Write the variable table of each role's README from its argument specification; `--check` only compares.

The table stands between `<!-- variables -->` and `<!-- /variables -->`; the rest of the page is written by people.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "roles"
BEGIN, END = "<!-- variables -->", "<!-- /variables -->"
LONGEST_DEFAULT = 80


def options(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of all entry points, those of `main` first; an option is the same wherever it is named."""
    entries = spec["argument_specs"]
    found: dict[str, dict[str, Any]] = {}
    for entry in ("main", *(name for name in entries if name != "main")):
        for name, option in entries.get(entry, {}).get("options", {}).items():
            found.setdefault(name, option)
    return found


def in_yaml(value: Any) -> str:
    """Return `value` as YAML on one line, shortened."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...")
    return text if len(text) <= LONGEST_DEFAULT else text[: LONGEST_DEFAULT - 4].rstrip() + " ..."


def kind(option: dict[str, Any]) -> str:
    """Return the type as a reader says it: `list of str`, `one of lab, appliance`."""
    if choices := option.get("choices"):
        return "one of " + ", ".join(f"`{choice}`" for choice in choices)
    of = f" of {option['elements']}" if "elements" in option else ""
    return f"{option.get('type', 'str')}{of}"


def rows(found: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, default and meaning of each option."""
    for name, option in found.items():
        words = option.get("description", "")
        text = " ".join(words) if isinstance(words, list) else str(words)
        default = (
            "required" if option.get("required") else f"`{in_yaml(option['default'])}`" if "default" in option else ""
        )
        yield f"`{name}`", kind(option), default, " ".join(text.split())


def table(spec: dict[str, Any]) -> str:
    """Return the Markdown table."""
    lines = [("Variable", "Type", "Default", "Meaning"), ("---",) * 4, *rows(options(spec))]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def page(readme: str, spec: dict[str, Any]) -> str:
    """Return the README with a fresh table. Raises ValueError when a marker is missing."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{table(spec)}{END}{tail}"


def main() -> int:
    """Write, or with --check only tell; 1 when a page is stale or cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something is stale")
    parser.add_argument("role", nargs="*", help="default: all")
    arguments = parser.parse_args()
    bad = False
    for name in arguments.role or sorted(path.name for path in ROLES.iterdir() if path.is_dir()):
        readme, source = ROLES / name / "README.md", ROLES / name / "meta/argument_specs.yml"
        try:
            old = readme.read_text()
            new = page(old, yaml.safe_load(source.read_text()))
        except (OSError, ValueError) as reason:
            print(f"roles/{name}: {reason}", file=sys.stderr)
            bad = True
            continue
        if old != new and arguments.check:
            print(f"roles/{name}/README.md is stale: tools/role_readme.py {name}", file=sys.stderr)
            bad = True
        elif old != new:
            readme.write_text(new)
            print(f"roles/{name}/README.md written")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
