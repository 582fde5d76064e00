# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A TCP proxy in front of a server: it cuts connections, and leads new ones to where it is told."""

from __future__ import annotations

import contextlib
import random
import socket
import threading


class Cutter(threading.Thread):
    """Cuts each connection after a random number of bytes while ``cutting``; ``address`` is where new ones go."""

    def __init__(self, host: str, port: int, seed: int, fewest: int, most: int) -> None:
        super().__init__(daemon=True)
        self.address, self.random, self.cutting = (host, port), random.Random(seed), True
        self.cuts, self.fewest, self.most = 0, fewest, most
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, dummy = self.socket.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.address)
            except OSError:  # nobody is there at present
                client.close()
                continue
            pair = [client, server]
            left = [self.random.randrange(self.fewest, self.most)]
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self.relay, args=(a, b, pair, left), daemon=True).start()

    def relay(self, a: socket.socket, b: socket.socket, pair: list[socket.socket], left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(4096):
                left[0] -= len(data)
                if self.cutting and left[0] <= 0:
                    b.sendall(data[: self.random.randrange(len(data))])
                    self.cuts += 1
                    break
                b.sendall(data)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
