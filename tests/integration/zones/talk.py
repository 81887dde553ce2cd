"""Runs inside a namespace: `serve PORT...` accepts for ever; `connect JSON` tries and tells which were accepted."""

from __future__ import annotations

import errno
import json
import selectors
import socket
import sys
import time

IP_TRANSPARENT = 19  # ip(7)
PATIENCE_SECONDS = 3.0  # one retransmitted SYN, on a loaded machine


def serve(ports: list[int]) -> None:
    """Accept and keep every connection."""
    with selectors.DefaultSelector() as selector:
        for port in ports:
            server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
            selector.register(server, selectors.EVENT_READ)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        kept = []
        while True:
            for key, _ in selector.select():
                kept.append(key.fileobj.accept())  # type: ignore[union-attr]  # only sockets are registered


def connect(attempts: list[tuple[str, str, int]]) -> list[bool]:
    """Open all connections at once and wait for the answers."""
    clients = []
    with selectors.DefaultSelector() as selector:
        for number, (source, dest, port) in enumerate(attempts):
            family = socket.AF_INET6 if ":" in dest else socket.AF_INET
            client = socket.socket(family, socket.SOCK_STREAM)
            client.setblocking(False)
            client.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)  # so that a forged source really leaves
            client.bind((source, 0))
            if client.connect_ex((dest, port)) in (0, errno.EINPROGRESS):
                selector.register(client, selectors.EVENT_WRITE, number)
            clients.append(client)  # all stay open until the last has its answer
        accepted = [False] * len(attempts)
        end = time.monotonic() + PATIENCE_SECONDS
        while selector.get_map() and time.monotonic() < end:
            for key, _ in selector.select(max(0.0, end - time.monotonic())):
                client = key.fileobj  # type: ignore[assignment]  # only sockets are registered
                accepted[key.data] = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                selector.unregister(client)
        return accepted


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve([int(port) for port in sys.argv[2:]])
    else:
        sys.stdout.write(json.dumps(connect(json.loads(sys.argv[2]))))
