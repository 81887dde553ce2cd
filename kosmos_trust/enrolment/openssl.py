"""The openssl program: the judge of chains, and the only way to keys that a provider keeps (TPM, PKCS #11).

Secrets never go through argv: files of mode 0600, or standard input.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..pki.names import AgentName
from .errors import EnrolmentError, KeyStoreError

TIMEOUT_SECONDS = 120  # a hardware TPM may take half a minute for one key


def run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run openssl. Raises EnrolmentError when it is not there or does not end."""
    command = ["openssl", *words]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, **(environment or {}), "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise EnrolmentError("openssl is not installed; install the package openssl") from error
    except subprocess.TimeoutExpired as error:
        raise EnrolmentError(f"openssl {words[0]} did not end within {TIMEOUT_SECONDS} s") from error


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Give a private folder for public data: openssl reads files only. Raises EnrolmentError when the disk is full."""
    try:
        with tempfile.TemporaryDirectory(prefix="kosmos-openssl-") as folder:
            yield folder
    except OSError as error:
        raise EnrolmentError(f"{tempfile.gettempdir()}: {error.strerror}; make room there") from error


def last_words(text: str) -> str:
    """Return the last line of what a program said, short enough for a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def chain_fault(
    leaf: x509.Certificate, chain: Iterable[x509.Certificate], anchor: x509.Certificate, now: datetime
) -> str | None:
    """Return why a client certificate does not verify up to the anchor at `now`, None when it does.

    RFC 5280 section 6 as OpenSSL does it, strictly: names, path length, usage, signatures, times.
    """
    with scratch() as folder:
        for name, certificates in (("anchor", [anchor]), ("chain", [*chain, anchor]), ("leaf", [leaf])):
            path = Path(folder) / name
            path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
        words = ["verify", "-x509_strict", "-purpose", "sslclient", "-attime", str(int(now.timestamp()))]
        words += ["-CAfile", f"{folder}/anchor", "-untrusted", f"{folder}/chain", f"{folder}/leaf"]
        done = run(words)
    if done.returncode == 0:
        return None
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error ")]
    return said[0].partition(": ")[2] if said else last_words(done.stderr)


def subject_option(name: AgentName) -> str:
    """Return the subject as `-subj` takes it, its special characters escaped."""
    escaped = "".join(f"\\{one}" if one in "\\/+" else one for one in name.organization)
    return f"/CN={name.common_name}/O={escaped}"


def provider_request(key: str, name: AgentName, options: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """Return a request (PEM) signed by a key that only a provider can use. `key` is a path or a URI without secrets."""
    # Without a configuration of our own, the system's would add extensions and ask questions.
    with scratch() as folder:
        (Path(folder) / "cnf").write_text("[req]\ndistinguished_name = dn\nprompt = no\n[dn]\n")
        words = ["req", "-new", "-config", f"{folder}/cnf", "-utf8", "-sha384", "-subj", subject_option(name)]
        words += ["-addext", f"subjectAltName=URI:{name.uri}", *options, "-key", key]
        done = run(words, environment)
    if done.returncode != 0 or "BEGIN CERTIFICATE REQUEST" not in done.stdout:
        raise KeyStoreError(f"{name.common_name}: the key could not sign a request: {last_words(done.stderr)}")
    return done.stdout.encode()
