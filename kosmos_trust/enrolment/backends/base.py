"""The interface of a certificate authority, and the two answers it may give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from cryptography import x509

from ...pki.names import AgentName
from ..errors import BackendRefusedError, EnrolmentError


@dataclass(frozen=True)
class Issued:
    """A certificate and its issuers, leaf's issuer first. `reference` is the authority's own name for it, if any."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    reference: str = ""


@dataclass(frozen=True)
class Pending:
    """A person has to approve. `request` is the authority's name for it."""

    request: str


class Backend(Protocol):
    """One certificate authority. Raises BackendUnavailableError (try later) or BackendRefusedError (it said no)."""

    name: str
    #: Whether `revoke` can be asked for.
    revokes: bool
    #: Whether `collect` only looks, so that check mode may call it.
    polls: bool

    def enrol(self, csr: bytes, name: AgentName, lifetime: timedelta, *, reuse_key: bool) -> Issued | Pending:
        """Ask for a certificate, once: it is never sent twice by itself."""

    def recover(self, csr: bytes) -> Issued | None:
        """Return the answer to an earlier request with this key, if the authority can tell; changes nothing there."""

    def collect(self, request: str, csr: bytes) -> Issued | Pending:
        """Return how a pending request stands; `csr` is what was sent with it."""

    def revoke(self, serial: str, reason: str, reference: str = "") -> None:
        """Revoke by serial (upper-case hexadecimal) or reference; one that is revoked already is a success."""


@contextmanager
def foreign(who: str) -> Iterator[None]:
    """Turn whatever the parsers of foreign bytes raise into a BackendRefusedError: their exceptions are many."""
    try:
        yield
    except EnrolmentError:
        raise
    except Exception as error:
        raise BackendRefusedError(f"{who}: the answer holds no readable certificate: {type(error).__name__}") from error


def order_chain(leaf: x509.Certificate, others: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
    """Return the leaf's issuers in order, without roots and strangers: servers send them in any order."""
    chain: list[x509.Certificate] = []
    below = leaf
    while True:
        above = [one for one in others if one.subject == below.issuer and one not in chain and one != below]
        if not above or above[0].subject == above[0].issuer:
            return tuple(chain)
        below = above[0]
        chain.append(below)
