# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""TCP proxies before a server: one cuts connections and leads new ones to where it is told, one swallows an answer."""

from __future__ import annotations

import contextlib
import random
import socket
import threading


class Proxy(threading.Thread):
    """Listens at ``port`` and has :meth:`serve` look after each client; ``address`` is where new connections go."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(daemon=True)
        self.address = (host, port)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, dummy = self.socket.accept()
            except OSError:
                return
            self.serve(client)

    def serve(self, client: socket.socket) -> None:
        raise NotImplementedError

    def reach(self, client: socket.socket) -> socket.socket | None:
        """The server's end; where nobody is there at present the client is shown out."""
        try:
            return socket.create_connection(self.address)
        except OSError:
            client.close()
            return None


def end(*sockets: socket.socket) -> None:
    """Nothing comes and goes through them any more."""
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Cutter(Proxy):
    """Cuts each connection after a random number of bytes while ``cutting``."""

    def __init__(self, host: str, port: int, seed: int, fewest: int, most: int) -> None:
        self.random, self.cutting = random.Random(seed), True
        self.cuts, self.fewest, self.most = 0, fewest, most
        super().__init__(host, port)

    def serve(self, client: socket.socket) -> None:
        server = self.reach(client)
        if server is None:
            return
        left = [self.random.randrange(self.fewest, self.most)]
        for a, b in ((client, server), (server, client)):
            threading.Thread(target=self.relay, args=(a, b, left), daemon=True).start()

    def relay(self, a: socket.socket, b: socket.socket, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(4096):
                left[0] -= len(data)
                if self.cutting and left[0] <= 0:
                    b.sendall(data[: self.random.randrange(len(data))])
                    self.cuts += 1
                    break
                b.sendall(data)
        end(a, b)


class Swallower(Proxy):
    """Sends on all but the server's answer to ``statement`` (a simple query) on connections whose first message has ``mark`` in it, and
    cuts them there: the server has done it, and the client does not know. ``swallowed`` counts."""

    def __init__(self, host: str, port: int, statement: str, mark: str) -> None:
        self.statement, self.mark = statement.encode() + b"\0", mark.encode()
        self.swallowed = 0
        super().__init__(host, port)

    def serve(self, client: socket.socket) -> None:
        server = self.reach(client)
        if server is None:
            return
        asked = threading.Event()
        threading.Thread(target=self.forth, args=(client, server, asked), daemon=True).start()
        threading.Thread(target=self.back, args=(server, client, asked), daemon=True).start()

    def forth(self, client: socket.socket, server: socket.socket, asked: threading.Event) -> None:
        first = b""
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                first = first or data
                if self.mark in first and data.endswith(self.statement):
                    asked.set()
                server.sendall(data)
        end(client, server)

    def back(self, server: socket.socket, client: socket.socket, asked: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if asked.is_set():
                    self.swallowed += 1
                    break
                client.sendall(data)
        end(client, server)
