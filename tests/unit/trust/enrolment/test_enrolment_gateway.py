"""The file of revocation lists for the gateway."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from enrolment_bed import PASSPHRASE, Bed
from https_bed import server_pair
from pki_bed import AGENT_NAME, WEEK, Clock, keeper, request, verify, whole_pki

from kosmos_trust.enrolment.errors import InstallError
from kosmos_trust.enrolment.gateway import install_lists
from kosmos_trust.enrolment.hooks import Hooks
from kosmos_trust.pki.authority import serial_text
from kosmos_trust.pki.keeper import Keeper, pem
from kosmos_trust.pki.profiles import AGENT


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pki(tmp_path: Path, clock: Clock) -> Keeper:
    return whole_pki(keeper(tmp_path / "pki", clock), ("root", "agents", "services"))


def test_the_file_makes_openssl_refuse_the_revoked_one(pki: Keeper, tmp_path: Path, clock: Clock) -> None:
    path, chain = tmp_path / "edge/crl.pem", pki.certificates("agents")
    stolen, good = (pki.issue("agents", request(), AGENT_NAME, AGENT) for _ in range(2))
    root_list = pki.publish("root", WEEK)[0]
    pki.revoke("agents", serial_text(stolen.serial_number), "keyCompromise", WEEK)
    made = pki.crl("agents")
    assert made is not None
    assert install_lists(path, [pki.publish("services", WEEK)[0], made, root_list], chain, clock.now)
    assert not install_lists(path, [made, root_list], chain, clock.now)
    assert path.stat().st_mode & 0o777 == 0o644
    options = ("-crl_check_all", "-CRLfile", path)
    assert "certificate revoked" in verify(tmp_path, stolen, chain[-1], chain[:-1], *options)
    assert verify(tmp_path, good, chain[-1], chain[:-1], *options).endswith(": OK")


def test_missing_forged_late_and_old_lists_are_refused(pki: Keeper, tmp_path: Path, clock: Clock) -> None:
    path, chain = tmp_path / "crl.pem", pki.certificates("agents")
    other = whole_pki(keeper(tmp_path / "other", clock), ("root", "agents"))
    root_list, old = pki.publish("root", WEEK)[0], pki.publish("agents", WEEK)[0]
    with pytest.raises(InstallError, match=r"no genuine revocation list of .*agents"):
        install_lists(path, [root_list], chain, clock.now)
    with pytest.raises(InstallError, match=r"no genuine revocation list of .*agents"):
        install_lists(path, [root_list, other.publish("agents", WEEK)[0]], chain, clock.now)
    with pytest.raises(InstallError, match="due for renewal"):
        install_lists(path, [root_list, old], chain, clock.now + WEEK)
    assert not path.exists()
    clock.now += timedelta(hours=1)
    new = pki.publish("agents", WEEK)[0]
    assert install_lists(path, [root_list, old, new], chain, clock.now)
    before = path.read_bytes()
    with pytest.raises(InstallError, match="is older than"):
        install_lists(path, [root_list, old], chain, clock.now)
    assert path.read_bytes() == before


def test_a_gateway_that_refuses_gets_the_former_lists_back(pki: Keeper, tmp_path: Path, clock: Clock) -> None:
    path, chain = tmp_path / "crl.pem", pki.certificates("agents")
    lists = [pki.publish("root", WEEK)[0], pki.publish("agents", WEEK)[0]]
    with pytest.raises(InstallError, match="emerg: bad"):
        install_lists(path, lists, chain, clock.now, Hooks(("sh", "-c", "echo emerg: bad; exit 1")))
    assert not path.exists()
    install_lists(path, lists, chain, clock.now)
    before = path.read_bytes()
    with pytest.raises(InstallError, match="the former lists are back"):
        install_lists(path, [lists[0], pki.publish("agents", WEEK)[0]], chain, clock.now, Hooks(("false",)))
    assert path.read_bytes() == before


NGINX = """daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_session_tickets off;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.pem;
    ssl_client_certificate {folder}/root.pem; ssl_verify_client on; ssl_verify_depth 2; ssl_crl {folder}/crl.pem;
    location / {{ return 200 "hello $ssl_client_s_dn"; }}
  }}
}}
"""


def test_a_real_nginx_takes_the_agent_and_refuses_it_after_the_reload(tmp_path: Path, clock: Clock) -> None:
    """The whole way: enrolled agent, gateway with our lists, `nginx -t` and reload as hooks, revocation."""
    if shutil.which("nginx") is None:
        pytest.skip("a real gateway is needed: nginx not installed (package nginx-light)")
    bed = Bed(tmp_path, clock)
    bed.run()
    pair, chain = bed.pair(), bed.pki.certificates("agents")
    assert pair is not None
    server_pair(bed.pki, tmp_path)
    (tmp_path / "root.pem").write_bytes(pem(chain[-1:]))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(folder=tmp_path, port=port))
    hooks = Hooks(("nginx", "-t", "-c", str(configuration)), ())
    root_list = bed.pki.publish("root", WEEK)
    assert install_lists(tmp_path / "crl.pem", [*root_list, *bed.pki.publish("agents", WEEK)], chain, clock.now, hooks)

    def ask() -> bytes:
        context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
        context.load_cert_chain(pair.folder / "fullchain.pem", pair.folder / "key.pem", PASSPHRASE)
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: tls.recv(4096), b""))

    with nginx(configuration, port):
        answer = ask()
        assert b" 200 " in answer.splitlines()[0]
        assert answer.endswith(b"hello O=Example Works,CN=agent-planner-1")
    bed.pki.revoke("agents", pair.serial, "keyCompromise", WEEK)
    made = bed.pki.crl("agents")
    assert made is not None
    assert install_lists(tmp_path / "crl.pem", [*root_list, made], chain, clock.now, hooks)
    with nginx(configuration, port):
        answer = ask()
        assert b" 400 " in answer.splitlines()[0]
        assert b"SSL certificate error" in answer


@contextmanager
def nginx(configuration: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen(["nginx", "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None and time.monotonic() < end, "nginx did not start"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)
