"""EST, Infisical and step-ca against a real HTTPS server that speaks their formats and signs with a real authority."""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from enrolment_bed import PASSPHRASE, Bed
from pki_bed import AGENT_NAME, PROFILES, keeper, openssl, whole_pki

pytest.importorskip("urllib3", reason="urllib3 is needed for authorities that are asked by HTTPS (make setup)")

from https_bed import Asked, Reply, Server, server_pair, serving

from kosmos_trust.enrolment.backends.base import order_chain
from kosmos_trust.enrolment.backends.est import Est
from kosmos_trust.enrolment.backends.http import MAX_ANSWER_BYTES, ClientPair, Https
from kosmos_trust.enrolment.backends.infisical import Infisical
from kosmos_trust.enrolment.backends.step_ca import Provisioner, StepCa
from kosmos_trust.enrolment.errors import BackendRefusedError, BackendUnavailableError
from kosmos_trust.enrolment.outcome import Action
from kosmos_trust.pki.authority import key_fingerprint
from kosmos_trust.pki.issue import issue
from kosmos_trust.pki.keeper import pem
from kosmos_trust.pki.profiles import AGENT

USER, SECRET = "box1", "canary-secret-4711"
PKCS7 = {"Content-Type": "application/pkcs7-mime; smime-type=certs-only", "Content-Transfer-Encoding": "base64"}
JSON = {"Content-Type": "application/json; charset=utf-8"}


class Remote:
    """The authority behind the server: signs what comes, and can be told to misbehave once."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed, self.folder = bed, folder
        self.signed: list[x509.Certificate] = []
        self.next: Reply | None = None
        self.after: Reply | None = None
        self.revoked: list[str] = []
        self.pending: dict[str, bytes] = {}
        self.approved = False
        self.est_waits = 0
        self.provisioner = ec.generate_private_key(ec.SECP256R1())

    def sign(self, csr: bytes) -> tuple[x509.Certificate, ...]:
        agents = self.bed.pki.load("agents")
        leaf = issue(agents, csr, AGENT_NAME, AGENT, now=self.bed.clock.now, random=os.urandom)
        self.signed.append(leaf)
        return (leaf, *agents.chain)

    def pkcs7(self, certificates: tuple[x509.Certificate, ...]) -> Reply:
        """Encode as an EST server does, with OpenSSL and in another order than ours."""
        (self.folder / "certificates.pem").write_bytes(pem(reversed(certificates)))
        out = self.folder / "answer.p7"
        openssl("crl2pkcs7", "-nocrl", "-certfile", self.folder / "certificates.pem", "-outform", "DER", "-out", out)
        return Reply(200, base64.encodebytes(out.read_bytes()), PKCS7)

    def __call__(self, asked: Asked) -> Reply:
        if self.next is not None and asked.method == "POST" and "login" not in asked.path:
            reply, self.next = self.next, None
            return reply
        if asked.path.startswith("/.well-known/est"):
            return self._est(asked)
        if asked.path.startswith("/1.0/"):
            return self._step(asked)
        return self._infisical(asked)

    def _est(self, asked: Asked) -> Reply:
        if asked.path.endswith("/cacerts"):
            return self.pkcs7(self.bed.pki.certificates("agents"))
        basic = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
        known = asked.fields.get("Authorization") == f"Basic {basic}"
        if asked.path.endswith("/simplereenroll"):
            known = asked.peer == AGENT_NAME.common_name
        if not known:
            return Reply(401, f"no such user, {SECRET}".encode(), {"Content-Type": "text/plain"})
        assert asked.fields["Content-Type"] == "application/pkcs10"
        der = base64.b64decode(asked.body)
        if self.est_waits:
            self.est_waits -= 1
            self.pending["est"] = asked.body
            return Reply(202, b"", {"Retry-After": "60"})
        assert self.pending.get("est", asked.body) == asked.body, "the same request again (section 4.2.3)"
        reply = self.pkcs7(self.sign(der)[:1])
        return self.after or reply

    def _infisical(self, asked: Asked) -> Reply:  # noqa: PLR0911
        content = json.loads(asked.body or b"{}")
        if asked.path == "/api/v1/auth/universal-auth/login":
            good = content == {"clientId": USER, "clientSecret": SECRET}
            token = {"accessToken": "canary-token", "expiresIn": 60, "tokenType": "Bearer"}
            return Reply(200, json.dumps(token).encode(), JSON) if good else Reply(401, b'{"message": "bad"}', JSON)
        if asked.fields.get("Authorization") != "Bearer canary-token":
            return Reply(403, b'{"message": "who?"}', JSON)
        if asked.path.endswith("/revoke"):
            self.revoked.append(asked.path.split("/")[-2])
            assert content == {"revocationReason": "SUPERSEDED"}
            return Reply(200, b'{"message": "ok"}', JSON)
        if "/certificate-requests/" in asked.path:
            return self._request_status(asked.path.rpartition("/")[2])
        if asked.path.endswith("/certificate"):
            return self._json(self._certificate(asked.path.split("/")[-2]))
        assert asked.path == "/api/v1/cert-manager/certificates"
        assert content["profileId"] == "profile-1"
        assert content["attributes"] == {"ttl": "90d"}
        if self.pending:
            self.pending["request-1"] = content["csr"].encode()
            return self._json({"certificate": None, "certificateRequestId": "request-1", "status": "pending_approval"})
        self.sign(content["csr"].encode())
        found = self._certificate(f"id-{len(self.signed) - 1}")
        return self._json({"certificate": found, "certificateRequestId": "r", "status": "issued"})

    def _request_status(self, request: str) -> Reply:
        if self.approved:
            self.sign(self.pending[request])
            last = f"id-{len(self.signed) - 1}"
            leaf = pem([self.signed[-1]]).decode()
            return self._json({"status": "issued", "certificate": leaf, "certificateId": last})
        return self._json({"status": "pending_approval", "certificate": None, "certificateId": None})

    def _certificate(self, identifier: str) -> dict[str, Any]:
        chain = self.bed.pki.certificates("agents")
        leaf = self.signed[int(identifier.removeprefix("id-"))]
        return {
            "certificate": pem([leaf]).decode(),
            "issuingCaCertificate": pem(chain[:1]).decode(),
            "certificateChain": pem(chain).decode(),
            "serialNumber": f"{leaf.serial_number:x}",
            "certificateId": identifier,
        }

    def _step(self, asked: Asked) -> Reply:
        content = json.loads(asked.body)
        self._check_token(content["ott"], asked.path)
        if asked.path == "/1.0/revoke":
            assert content["passive"] is True
            assert content["reasonCode"] == 4
            self.revoked.append(content["serial"])
            return Reply(200, b'{"status": "ok"}', JSON)
        chain = [pem([one]).decode() for one in self.sign(content["csr"].encode())]
        answer = {"crt": chain[0], "ca": chain[1], "certChain": chain}
        return Reply(201, json.dumps(answer).encode(), JSON)

    def _check_token(self, token: str, path: str) -> None:
        """Verify as step-ca's JWK provisioner does: ES256 signature, issuer, audience, times, subject."""
        head, body, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
        der = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        signing = token.rpartition(".")[0].encode()
        self.provisioner.public_key().verify(der, signing, ec.ECDSA(hashes.SHA256()))
        assert json.loads(head) == {"alg": "ES256", "typ": "JWT", "kid": "key-1"}
        claims, now = json.loads(body), self.bed.clock.now.timestamp()
        assert claims["iss"] == "kosmos"
        assert claims["aud"].endswith(path)
        assert claims["nbf"] <= now < claims["exp"] <= now + 300
        if path == "/1.0/sign":
            assert (claims["sub"], claims["sans"]) == (AGENT_NAME.common_name, [AGENT_NAME.uri])

    @staticmethod
    def _json(content: object) -> Reply:
        return Reply(200, json.dumps(content).encode(), JSON)


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


@pytest.fixture
def remote(bed: Bed, tmp_path: Path) -> Remote:
    return Remote(bed, tmp_path)


@pytest.fixture
def server(bed: Bed, tmp_path: Path, remote: Remote) -> Iterator[Server]:
    pair = server_pair(bed.pki, tmp_path)
    (tmp_path / "trusted.pem").write_bytes(pem(bed.pki.certificates("agents")))
    with serving(pair, tmp_path / "trusted.pem", remote) as found:
        yield found


def https(bed: Bed, server: Server, who: str = "the authority") -> Https:
    return Https(server.base, bed.pki.certificates("root")[0], who, 5)


def backend(kind: str, bed: Bed, server: Server, remote: Remote) -> Any:
    if kind == "est":
        return Est(https(bed, server), "agents", lambda: (USER, SECRET))
    if kind == "infisical":
        return Infisical(https(bed, server), "profile-1", lambda: (USER, SECRET))
    return StepCa(https(bed, server), Provisioner("kosmos", "key-1", remote.provisioner, bed.clock, os.urandom))


KINDS = ["est", "infisical", "step_ca"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_is_issued_renewed_and_its_predecessor_revoked(
    kind: str, bed: Bed, server: Server, remote: Remote
) -> None:
    bed.backend = backend(kind, bed, server, remote)
    assert bed.run().changed
    assert bed.good()
    assert not bed.run().changed
    first = bed.pair()
    bed.age(0.73)
    assert bed.run().action is Action.RENEW
    assert bed.good()
    assert len(remote.signed) == 2
    bed.clock.now += timedelta(days=2)
    done = bed.run()
    if bed.backend.revokes:
        assert done.action is Action.RETIRE
        assert first is not None
        assert remote.revoked == [{"infisical": "id-0", "step_ca": str(first.certificate.serial_number)}[kind]]
    assert not bed.run().changed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("reply", "error", "said"),
    [
        (Reply(400, b'{"message": "policy says no"}', JSON), BackendRefusedError, "HTTP 400: policy says no"),
        (Reply(403, b"<html>login</html>", {"Content-Type": "text/html"}), BackendRefusedError, "HTTP 403$"),
        (Reply(302, b"", {"Location": "https://localhost:1/"}), BackendRefusedError, "HTTP 302"),
        (Reply(200, b"rubbish", {"Content-Type": "text/plain"}), BackendRefusedError, "the answer"),
        (Reply(200, b"x" * (MAX_ANSWER_BYTES + 1)), BackendRefusedError, "more than"),
        (Reply(429, b"", {"Retry-After": "60"}), BackendUnavailableError, "HTTP 429"),
        (Reply(503, b""), BackendUnavailableError, "HTTP 503"),
        (Reply(502, b""), BackendUnavailableError, "HTTP 502"),
        (Reply(silent=True), BackendUnavailableError, "did not arrive"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else "",
)
def test_a_bad_answer_is_told_asked_for_once_and_got_over(
    kind: str, reply: Reply, error: type[Exception], said: str, request: pytest.FixtureRequest
) -> None:
    bed, server, remote = (request.getfixturevalue(name) for name in ("bed", "server", "remote"))
    bed.backend = backend(kind, bed, server, remote)
    remote.next = reply
    with pytest.raises(error, match=said) as caught:
        bed.run()
    posts = [one for one in server.asked if one.method == "POST" and "login" not in one.path]
    assert len(posts) == 1, "a request is never repeated by itself"
    assert "canary" not in str(caught.value)
    assert bed.run().changed
    assert bed.good()
    assert not list(bed.agent.glob("staging-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_offline_is_grace(kind: str, bed: Bed, tmp_path: Path, remote: Remote) -> None:
    (tmp_path / "trusted.pem").write_bytes(pem(bed.pki.certificates("agents")))
    with serving(server_pair(bed.pki, tmp_path), tmp_path / "trusted.pem", remote) as server:
        bed.backend = backend(kind, bed, server, remote)
        bed.run()
    bed.age(0.73)
    done = bed.run()
    assert not done.changed
    assert "no connection" in done.warnings[0]
    bed.age(0.95)
    with pytest.raises(BackendUnavailableError, match="no connection"):
        bed.run()


def test_only_the_pinned_root_is_believed(bed: Bed, server: Server, tmp_path: Path) -> None:
    other = whole_pki(keeper(tmp_path / "other"), ("root",)).certificates("root")[0]
    bed.backend = Est(Https(server.base, other, "est", 5), "agents", lambda: (USER, SECRET))
    with pytest.raises(BackendUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        bed.run()
    assert server.asked == [], "no secret was sent"
    with pytest.raises(BackendUnavailableError, match=r"Hostname mismatch|IP address mismatch"):
        Https(server.base.replace("localhost", "127.0.0.1"), bed.pki.certificates("root")[0], "est", 5).send("GET", "/")


@pytest.mark.parametrize(
    "address", ["http://localhost", "https://", "localhost", "https://a:b@localhost", "https://x/?q=1"]
)
def test_an_address_that_is_not_plain_https_is_refused(address: str, bed: Bed) -> None:
    with pytest.raises(BackendRefusedError, match="https://host") as caught:
        Https(address, bed.pki.certificates("root")[0], "est")
    assert "a:b" not in str(caught.value)


def test_a_server_that_says_nothing_costs_a_time_out(bed: Bed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[object] = []
        threading.Thread(target=lambda: kept.append(listening.accept()), daemon=True).start()
        address = f"https://localhost:{listening.getsockname()[1]}"
        with pytest.raises(BackendUnavailableError, match=r"timed out|Timeout"):
            Https(address, bed.pki.certificates("root")[0], "est", 0.3).send("POST", "/", body=b"x")


def test_environment_proxies_are_not_used(bed: Bed, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    bed.backend = Est(https(bed, server), "agents", lambda: (USER, SECRET))
    assert bed.run().changed


# -- EST -----------------------------------------------------------------------------------------------------------
def test_est_renews_with_the_present_pair(bed: Bed, server: Server, remote: Remote) -> None:
    def pair() -> ClientPair | None:
        current = bed.agent / "current"
        return ClientPair(current / "fullchain.pem", current / "key.pem", PASSPHRASE) if current.is_symlink() else None

    bed.backend = Est(https(bed, server), "agents", lambda: (USER, SECRET), pair)
    bed.run()
    assert server.asked[0].path == "/.well-known/est/agents/simpleenroll"
    bed.age(0.73)
    bed.run()
    renewal = [one for one in server.asked if one.path.endswith("simplereenroll")]
    assert [one.peer for one in renewal] == ["agent-planner-1"]
    assert bed.good()


def test_est_202_is_repeated_by_a_later_run_with_the_same_request(bed: Bed, server: Server, remote: Remote) -> None:
    bed.backend = Est(https(bed, server), "agents", lambda: (USER, SECRET))
    remote.est_waits = 2
    done = bed.run()
    assert "waits for an approval" in done.warnings[0]
    count = len(server.asked)
    assert bed.check().action is Action.WAIT
    assert len(server.asked) == count, "check mode sends no request"
    with pytest.raises(BackendUnavailableError, match="waits for an approval"):
        bed.run()
    assert bed.run().changed
    assert bed.good()
    assert len(remote.signed) == 1


def test_est_shows_the_authorities(bed: Bed, server: Server) -> None:
    found = Est(https(bed, server), "agents").authorities()
    assert set(found) == set(bed.pki.certificates("agents"))


def test_a_lost_answer_is_not_asked_for_blindly(bed: Bed, server: Server, remote: Remote) -> None:
    """The authority signed, the connection broke. The next run gives that key up and makes a new one."""
    bed.backend = Est(https(bed, server), "agents", lambda: (USER, SECRET))
    remote.after = Reply(silent=True)
    with pytest.raises(BackendUnavailableError, match="did not arrive"):
        bed.run()
    assert len(remote.signed) == 1
    remote.after = None
    assert bed.run().changed
    assert bed.good()
    keys = {key_fingerprint(one.public_key()) for one in remote.signed}
    assert len(remote.signed) == len(keys) == 2


# -- Infisical -----------------------------------------------------------------------------------------------------
def test_an_approval_is_waited_for_and_then_installed(bed: Bed, server: Server, remote: Remote) -> None:
    bed.backend = backend("infisical", bed, server, remote)
    bed.run()
    first = bed.pair()
    bed.age(0.73)
    remote.pending["any"] = b""
    assert "request request-1 waits" in bed.run().warnings[0]
    assert bed.check().action is Action.WAIT
    waiting = bed.run()
    assert (waiting.changed, waiting.action) == (False, Action.WAIT)
    assert bed.pair() == first
    remote.approved = True
    done = bed.run()
    assert done.changed
    assert bed.good()
    assert bed.pair() != first


def test_a_rejected_request_is_told_and_the_next_run_asks_anew(
    bed: Bed, server: Server, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.backend = backend("infisical", bed, server, remote)
    remote.pending["any"] = b""
    bed.run()
    rejected = {"status": "rejected", "certificate": None, "errorMessage": "not you, canary-token"}
    monkeypatch.setattr(remote, "_request_status", lambda request: remote._json(rejected))
    with pytest.raises(BackendRefusedError, match=r"'rejected': not you, \*\*\*"):
        bed.run()
    remote.pending.clear()
    assert bed.run().changed


def test_a_wrong_client_secret_is_refused_without_showing_it(bed: Bed, server: Server) -> None:
    bed.backend = Infisical(https(bed, server), "profile-1", lambda: (USER, "canary-wrong"))
    with pytest.raises(BackendRefusedError, match="was not let in: HTTP 401: bad") as caught:
        bed.run()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_in_logs_or_reprs(
    kind: str, bed: Bed, server: Server, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bed.backend = backend(kind, bed, server, remote)
    shown = repr(bed.run()) + repr(bed.backend) + repr(bed.heard) + repr(ClientPair(Path("a"), Path("b"), b"canary"))
    shown += repr(Provisioner("kosmos", "key-1", remote.provisioner, bed.clock, os.urandom)) + caplog.text
    for path in bed.agent.rglob("*"):
        shown += path.read_text() if path.is_file() else ""
    assert "canary" not in shown
    assert str(remote.provisioner.private_numbers().private_value) not in shown


def test_chains_are_put_in_order_without_roots_and_strangers(bed: Bed) -> None:
    pki = whole_pki(keeper(bed.folder / "more"), PROFILES)
    issuer, mesh, root = pki.certificates("mesh-issuer")
    stranger = pki.certificates("services")[0]
    assert order_chain(issuer, (root, stranger, mesh, issuer)) == (mesh,)
    assert order_chain(root, (root, mesh)) == ()
