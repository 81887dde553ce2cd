"""Take secrets out of everything that is recorded or shown. Every event passes here before anything else sees it.

Three nets, because each alone has holes: values that are known to be secret, keys that name a secret, and text that
looks like one (private keys, password hashes, tokens, credentials in URLs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

MASK = "********"
SHORTEST = 4  # a shorter value would mask parts of ordinary words

_WORDS = r"pass(?:word|wd|phrase|code)|(?<=[_.-])pass|secret|token|credential|(?:api|private|access)[_-]?key|psk"
_ENDS = r"(?:s|_?(?:hash|value|data|text|content|b64|base64|plain))?"

# The last word of the key decides: `db_password` is one, `password_file` and `token_count` are not.
_SECRET_KEY = re.compile(rf"(?i)(?:^|[^a-z0-9])(?:{_WORDS}){_ENDS}$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_KEY = r"[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # The end may be cut off; then everything after the beginning goes.
    (re.compile(rf"-----BEGIN {_KEY}.*?(?:-----END {_KEY}|\Z)", re.DOTALL), MASK),
    (re.compile(r"\$(?:1|2[abxy]|5|6|7|y|gy|argon2(?:id?|d))\$[A-Za-z0-9./$,=+]{8,}"), MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), MASK),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@"), rf"\1{MASK}@"),
    # `password: x`, `"db_password": "x"`, `API_TOKEN=x`, `--token x`
    (re.compile(rf"""(?ix) ( (?<![a-z0-9]) (?:[a-z0-9]+[_.-])* (?:{_WORDS}) {_ENDS} ["']? \s* [:=] \s* )
                     (?: "(?:[^"\\\n]|\\.)+" | '(?:[^'\\\n]|\\.)+' | (?!["'\[{{|>]) [^\s,;"']+ )"""), rf"\1{MASK}"),
    (re.compile(rf"(?i)(--(?:[a-z0-9]+-)*(?:{_WORDS})[ =])[^\s-]\S*"), rf"\1{MASK}"),
)  # fmt: skip

# Words that follow `password:` in ordinary settings and messages, and are no secret.
_HARMLESS = frozenset({"", "no", "yes", "true", "false", "null", "none", "required", "omit", MASK})


@dataclass(frozen=True)
class Redactor:
    """Masks secrets in text and in JSON-like data. `known` holds secret values, longest first."""

    known: tuple[str, ...] = ()

    @classmethod
    def knowing(cls, values: Iterable[str]) -> Redactor:
        """A redactor that also masks these values wherever they stand, and each line of a value with many lines."""
        pieces = {piece.strip() for value in values for piece in (value, *value.splitlines())}
        long_enough = {piece for piece in pieces if len(piece) >= SHORTEST and piece.lower() not in _HARMLESS}
        return cls(tuple(sorted(long_enough, key=lambda piece: (-len(piece), piece))))

    def text(self, text: str) -> str:
        """`text` without its secrets."""
        for value in self.known:
            text = text.replace(value, MASK)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(partial(_unless_harmless, replacement), text)
        return text

    def data(self, value: Any) -> Any:
        """A copy of JSON-like data without its secrets, keys included. Tuples become lists."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._under(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self.data(item) for item in value]
            return self._whole(value, items) if all(isinstance(item, str) for item in value) else items
        return value

    def _whole(self, lines: list[str] | tuple[str, ...], clean: list[str]) -> list[str]:
        """A secret of many lines may have been cut into a list (`stdout_lines`), where no line alone tells it."""
        text = self.text("\n".join(lines))
        return clean if text == "\n".join(clean) else text.split("\n")

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """An Ansible event without its secrets, and without the host's facts: they are many and nobody reads them."""
        clean: dict[str, Any] = self.data(event)
        data = clean.get("event_data")
        result = data.get("res") if isinstance(data, dict) else None
        if isinstance(result, dict):
            result.pop("ansible_facts", None)
            result.pop("invocation", None)
        return clean

    def _under(self, key: str, item: Any) -> Any:
        if not is_secret_key(key):
            return self.data(item)
        if isinstance(item, str):
            return item if item.strip().lower() in _HARMLESS else MASK
        if isinstance(item, list | tuple):
            return [self._under(key, part) for part in item]
        return self.data(item)


def is_secret_key(key: str) -> bool:
    """Whether a value under this key has to be taken for a secret."""
    return _SECRET_KEY.search(_CAMEL.sub("_", key)) is not None


def secret_values(data: Any, key: str = "") -> list[str]:
    """Every text below a key that names a secret, for `Redactor.knowing`. Jinja expressions are no values."""
    if isinstance(data, Mapping):
        return [value for name, item in data.items() for value in secret_values(item, str(name))]
    if isinstance(data, list | tuple):
        return [value for item in data for value in secret_values(item, key)]
    if isinstance(data, str) and key and is_secret_key(key) and "{{" not in data and "{%" not in data:
        return [data]
    return []


def _unless_harmless(replacement: str, match: re.Match[str]) -> str:
    value = match.group(0)
    if match.re.groups:
        value = value[match.end(1) - match.start(0) :]
    return match.group(0) if value.strip().strip("\"'").lower() in _HARMLESS else match.expand(replacement)
