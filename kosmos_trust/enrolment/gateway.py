"""The revocation lists that a gateway reads (`ssl_crl`): complete, genuine, fresh, and never older than those in use.

nginx needs the list of every authority of the chain in one file, and refuses every client while one is missing or late,
so a bad file must not get there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509

from ..pki.crl import bundle, genuine
from ..pki.store import PUBLIC, exclusive, make_folder, read_file, write_file
from .errors import InstallError
from .hooks import Hooks


def install_lists(
    path: Path,
    lists: Sequence[x509.CertificateRevocationList],
    authorities: Sequence[x509.Certificate],
    now: datetime,
    hooks: Hooks | None = None,
) -> bool:
    """Put the lists of all `authorities` into one file and let the gateway reload; return whether that was needed.

    Raises InstallError: a list is missing, forged, late or older than that in use, or the gateway refused (then the
    former file is back). Raises StoreError when the file cannot be written.
    """
    chosen = [_genuine(authority, lists, now) for authority in authorities]
    make_folder(path.parent)
    with exclusive(path.with_name(f".{path.name}.lock")):
        before = read_file(path, private=False) if path.exists() else b""
        _refuse_older(path, before, chosen)
        data = bundle(chosen)
        if data == before:
            return False
        write_file(path, data, PUBLIC)
        try:
            (hooks or Hooks()).take_over()
        except InstallError as error:
            if before:
                write_file(path, before, PUBLIC)
            else:
                path.unlink()
            raise InstallError(f"{path}: {error}; the former lists are back in place") from error
    return True


def _genuine(
    authority: x509.Certificate, lists: Sequence[x509.CertificateRevocationList], now: datetime
) -> x509.CertificateRevocationList:
    name = authority.subject.rfc4514_string()
    found = [one for one in lists if genuine(one, authority)]
    if not found:
        raise InstallError(f"there is no genuine revocation list of {name}; publish one and try again")
    newest = max(found, key=_number)
    end = newest.next_update_utc
    if end is None or end <= now:
        late = f"{end:%Y-%m-%d %H:%M} UTC" if end else "without a date"
        raise InstallError(f"the revocation list of {name} was due for renewal ({late}); publish a new one")
    return newest


def _number(one: x509.CertificateRevocationList) -> int:
    return one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _refuse_older(path: Path, before: bytes, chosen: Sequence[x509.CertificateRevocationList]) -> None:
    """An attacker who plays an old list back would make a revoked certificate valid again."""
    marker = b"-----END X509 CRL-----"
    for text in before.split(marker)[:-1]:
        old = x509.load_pem_x509_crl(text + marker + b"\n")
        for new in chosen:
            if new.issuer == old.issuer and _number(new) < _number(old):
                raise InstallError(
                    f"{path}: list {_number(new)} of {new.issuer.rfc4514_string()} is older than {_number(old)}, "
                    "which is in use; nothing was changed"
                )
