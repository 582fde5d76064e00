# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A process of relays (``cli.py relay``): does what :mod:`.crew` in the worker asks for, and ends when that is gone.

Its sessions are broken off then, and the servers roll back what was not committed: nothing that writes to a database outlives the
process that answers for it.
"""

from __future__ import annotations

import asyncio
import socket
import typing as t

from .pace import REST, Pace
from .relay import Relay
from .relaylink import Answer, Begin, Call, Close, Moved, Pressure, portable, receive, send


def host(descriptor: int) -> int:
    """Serve the other end of the socket ``descriptor`` until it is closed; the exit status."""
    asyncio.run(_serve(socket.socket(fileno=descriptor)))
    return 0


async def _serve(link: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=link)
    begin = await receive(reader)
    if isinstance(begin, Begin):
        await RelayHost(begin, writer).serve(reader)
    writer.close()


class RelayHost:
    """Relays by number, made when they are first asked for."""

    def __init__(self, begin: Begin, writer: asyncio.StreamWriter) -> None:
        self._route, self._writer = begin.route, writer
        self._pressure = 0.0
        self._pace = Pace(0, lambda: self._pressure)
        self._relays: dict[int, Relay] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = 0

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Obey until nobody is there any more."""
        teller = asyncio.ensure_future(self._tell())
        try:
            while (message := await receive(reader)) is not None:
                if isinstance(message, Call):
                    task = asyncio.get_running_loop().create_task(self._answer(message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                elif isinstance(message, Pressure):
                    self._pressure = message.value
                elif isinstance(message, Close):
                    self._relay(message.relay).close()
        finally:
            for relay in self._relays.values():
                relay.close()
            for task in (teller, *self._tasks):
                task.cancel()
            await asyncio.gather(teller, *self._tasks, return_exceptions=True)

    def _relay(self, number: int) -> Relay:
        if number not in self._relays:
            self._relays[number] = Relay(self._route, self._count, self._pace)
        return self._relays[number]

    async def _answer(self, call: Call) -> None:
        method: t.Callable[..., t.Awaitable[t.Any]] = getattr(self._relay(call.relay), call.method)
        try:
            answer = Answer(call.number, await method(*call.arguments, **call.options))
        except Exception as exc:  # the worker judges it, as it does those of its own relays
            answer = Answer(call.number, error=portable(exc))
        self._say_moved()
        send(self._writer, answer)

    def _count(self, size: int) -> None:
        self._moved += size

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(REST)
            self._say_moved()

    def _say_moved(self) -> None:
        if self._moved:
            send(self._writer, Moved(self._moved))
            self._moved = 0
