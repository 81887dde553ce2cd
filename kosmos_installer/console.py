"""Plain words to the terminal: text for people, JSON for programs. No colour, no cursor movement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from kosmos_installer.errors import KosmosError, wrapped

__all__ = ["say", "say_error", "say_json", "table", "warn", "wrapped"]


def say(text: str) -> None:
    """Print one message to standard output."""
    typer.echo(text)


def warn(text: str) -> None:
    """Print one message to standard error."""
    typer.echo(text, err=True)


def say_json(data: Any) -> None:
    """Print one JSON document to standard output. Dates become ISO 8601 text, paths their text."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def say_error(error: KosmosError, *, as_json: bool) -> None:
    """Tell a failure: to people on standard error, to programs as `{"error": {...}}` on standard output."""
    if as_json:
        say_json({"error": error.data()})
    else:
        warn(error.text())


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by spaces; the last one keeps its length. No trailing spaces, no final newline."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )
