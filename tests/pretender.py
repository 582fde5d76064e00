# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A real server that passes for another: a relay between it and its clients that changes what it says at the login, or what is said to it.

For versions of which no package can be installed (only what is decided by the version alone can be tested so), and for poolers and
providers that have a will of their own.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import typing as t

import servers as lab


class Pretender:
    """``with Pretender(server, "9.4.26") as other``: connect to ``other.port``, without TLS.

    :param version: empty: the server's own.
    :param heard: what clients say to what the server hears instead, of the same length.
    """

    def __init__(self, server: lab.Server, version: str = "", heard: t.Mapping[bytes, bytes] | None = None) -> None:
        self._server = server
        self._version = version
        self._heard = dict(heard or {})
        assert all(len(said) == len(other) for said, other in self._heard.items())
        self._said = b"server_version\0" + version.encode() + b"\0"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Pretender:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *dummy: t.Any) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                behind = socket.create_connection((self._server.host, self._server.port))
                threading.Thread(target=self._forward, args=(client, behind), daemon=True).start()
                threading.Thread(target=self._answer, args=(behind, client), daemon=True).start()

    def _forward(self, client: socket.socket, behind: socket.socket) -> None:
        with contextlib.suppress(OSError), client, behind:
            while data := client.recv(65536):
                for said, other in self._heard.items():
                    data = data.replace(said, other)
                behind.sendall(data)

    def _answer(self, behind: socket.socket, client: socket.socket) -> None:
        """Messages of the server: a letter, their length with itself, the rest (PostgreSQL manual, 55.7)."""
        with contextlib.suppress(OSError), behind.makefile("rb") as stream:
            while head := stream.read(5):
                body = stream.read(struct.unpack("!I", head[1:])[0] - 4)
                if self._version and head[:1] == b"S" and body.startswith(b"server_version\0"):
                    body = self._said
                client.sendall(head[:1] + struct.pack("!I", len(body) + 4) + body)
