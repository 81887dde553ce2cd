"""Secrets go, everything else stays readable."""

from __future__ import annotations

from typing import Any

import pytest

from kosmos_installer.redact import MASK, Redactor, is_secret_key, secret_values

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\nQUJD\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    "key",
    ["password", "db_password", "passwd", "DB_PASS", "ansible_become_pass", "client_secret", "apiKey", "api-key",
     "API_TOKEN", "private_key", "privateKey", "credentials", "passphrase", "password_hash", "kosmos.secret",
     "ansible_become_password", "secrets", "tls_private_key_content"],
)  # fmt: skip
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    ["password_file", "private_key_path", "token_count", "passed", "compass", "secret_name", "keyring",
     "password_min_days", "key", "pass", "public_key", "ansible_ssh_private_key_file", "tokenizer", "bypass"],
)  # fmt: skip
def test_harmless_keys(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("password: hunter2", f"password: {MASK}"),
        ("db_password = 'hun ter2'; next", f"db_password = {MASK}; next"),
        ('{"api_token": "abc\\"def", "n": 1}', f'{{"api_token": {MASK}, "n": 1}}'),
        ("export API_KEY=abc123 x", f"export API_KEY={MASK} x"),
        ("tool --token abc123 --dry-run", f"tool --token {MASK} --dry-run"),
        ("tool --db-password=abc", f"tool --db-password={MASK}"),
        ("Authorization: Bearer abcdefgh12345", f"Authorization: Bearer {MASK}"),
        ("https://user:pa55@host/x", f"https://user:{MASK}@host/x"),
        ("root:$y$j9T$abcdefgh$ABCDEFGHIJ:1", f"root:{MASK}:1"),
        ("a eyJhbGciOiJIUzI1.eyJzdWIiOiIx.abc z", f"a {MASK} z"),
        (f"before\n{KEY}\nafter", f"before\n{MASK}\nafter"),
        (f"cut {KEY[:60]}", f"cut {MASK}"),
    ],
)
def test_secret_text(text: str, clean: str) -> None:
    assert Redactor().text(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "PasswordAuthentication no",
        "password [success=1 default=ignore] pam_unix.so obscure yescrypt",
        "password requisite pam_pwquality.so retry=3",
        "PermitEmptyPasswords no",
        "password: no",
        "token: null",
        "secret: {{ lookup('file', 'x') }}",
        "sudo: a password is required",
        "BECOME password: ",
        "12 pass: all of them",
        "{'pass': 1}",
        "ssh://operator@host:22/path",
        "PASS_MAX_DAYS   365",
        "minlen = 14",
        "MACs hmac-sha2-512-etm@openssh.com",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_known_values_go_everywhere_the_longest_first() -> None:
    redactor = Redactor.knowing(["abcd", "abcdef", "first line\nsecond line", "no", "", "xy", "true"])
    assert redactor.text("abcdef abcd") == f"{MASK} {MASK}"
    assert redactor.data({"x abcd": ["second line", {"y": "first line"}]}) == {f"x {MASK}": [MASK, {"y": MASK}]}
    assert redactor.text("no xy true") == "no xy true"


@pytest.mark.parametrize(
    ("data", "clean"),
    [
        ({"password": "x", "user": "y"}, {"password": MASK, "user": "y"}),
        ({"password": None, "token": True, "secret": 7}, {"password": None, "token": True, "secret": 7}),
        ({"passwords": ["a", ("b",)]}, {"passwords": [MASK, [MASK]]}),
        ({"secret": {"name": "n", "password": "p"}}, {"secret": {"name": "n", "password": MASK}}),
        ({"password": "no"}, {"password": "no"}),
        ([1, 2.5, None], [1, 2.5, None]),
        (["a", *KEY.splitlines(), "b\nc"], ["a", MASK, "b", "c"]),
        (["a\nb", "c"], ["a\nb", "c"]),
    ],
)
def test_data(data: Any, clean: Any) -> None:
    assert Redactor().data(data) == clean


def test_event_loses_facts_and_invocation() -> None:
    event = {"event": "runner_on_ok", "event_data": {"res": {"ansible_facts": {"a": 1}, "invocation": {}, "msg": "m"}}}
    assert Redactor().event(event)["event_data"]["res"] == {"msg": "m"}
    assert Redactor().event({"event": "verbose", "stdout": "token=abc"})["stdout"] == f"token={MASK}"


def test_secret_values_of_an_inventory() -> None:
    hostvars = {
        "box": {
            "ansible_become_password": "one",
            "users": [{"name": "a", "password": "two"}, {"password": "{{ vaulted }}"}],
            "tokens": ["three"],
            "password_file": "/etc/x",
            "note": "four",
        }
    }
    assert secret_values(hostvars) == ["one", "two", "three"]
