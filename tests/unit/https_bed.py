"""A real HTTPS server on the loopback whose answers a test decides, and which remembers what it was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pki_bed import ORGANIZATION

from kosmos_trust.pki.authority import new_key
from kosmos_trust.pki.keeper import Keeper, pem
from kosmos_trust.pki.keys import plain_pem
from kosmos_trust.pki.names import ServiceName
from kosmos_trust.pki.profiles import P384, SERVICE

#: Service certificates may name no address; this name means 127.0.0.1 on every glibc (RFC 6761).
HOST = "localhost"


@dataclass
class Asked:
    method: str
    path: str
    fields: dict[str, str]
    body: bytes
    peer: str


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    fields: dict[str, str] = field(default_factory=dict)
    #: Close the connection instead of answering.
    silent: bool = False


@dataclass
class Server:
    base: str
    asked: list[Asked] = field(default_factory=list)


def server_pair(pki: Keeper, folder: Path) -> Path:
    """Make a certificate for localhost below the root, outside the services' name space."""
    from datetime import timedelta

    from cryptography import x509

    root, key = pki.load("root"), new_key(P384)
    name = ServiceName(ORGANIZATION, (HOST,))
    builder = root.builder(pki.clock(), timedelta(days=2), pki.random).subject_name(name.subject)
    builder = builder.public_key(key.public_key())
    builder = builder.add_extension(x509.SubjectAlternativeName(name.names), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage(SERVICE.usages), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    path = folder / "server.pem"
    path.write_bytes(plain_pem(key) + pem([root.sign(builder)]))
    return path


@contextmanager
def serving(pair: Path, root: Path, answer: Callable[[Asked], Reply]) -> Iterator[Server]:
    """Serve until the block ends; client certificates below `root` are asked for, and not demanded."""
    told: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            peer = self.connection.getpeercert()
            names = [value for part in (peer or {}).get("subject", ()) for key, value in part if key == "commonName"]
            asked = Asked(self.command, self.path, dict(self.headers.items()), body, names[0] if names else "")
            told.append(asked)
            reply = answer(asked)
            if reply.silent:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for key, value in {"Content-Length": str(len(reply.body)), **reply.fields}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = _any  # noqa: N815

        def log_message(self, *args: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.load_verify_locations(root)
    context.verify_mode = ssl.CERT_OPTIONAL
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Server(f"https://{HOST}:{server.server_address[1]}", told)
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
