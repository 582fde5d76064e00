# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Where the relays of a copy run: all in this process, or shared out among processes of their own where cores are free for them.

A relay is one core's work at the most (asyncio), and as many of them in one process have one core together.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess  # nosec: our own engine
import typing as t

from .pace import REST, Pace
from .plan import Unit
from .relay import Done, Relay, Route, untold
from .relaylink import Answer, Begin, Call, Close, Moved, Pressure, receive, send
from .restraint import no_pressure

LARGE = 1 << 30
"""Bytes of tables from which on further processes are worth their start."""

END_SECONDS = 10.0
"""How long a process may take to end before it is killed."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_for(wanted: int, jobs: int, bytes_: int, rate: int, free: int) -> int:
    """How many processes of their own ``jobs`` relays get for tables of ``bytes_``; 0: none, they run in this one.

    :param wanted: what the user asks for (``copy.processes``); 0: as many as there are cores besides this process's, for large copies.
    :param rate: the throttle (bytes a second), which the relays of one process share. :param free: cores.
    """
    if rate:
        return 0
    count = wanted or (free - 1 if bytes_ >= LARGE else 0)
    count = min(jobs, count)
    return count if count > 1 else 0


class Hand(t.Protocol):
    """A relay, wherever it runs; see :class:`.relay.Relay`."""

    async def marked(self, unit: Unit) -> list[Done]:
        """``unit`` if it is on the target already."""

    async def copy(self, unit: Unit, *, again: bool = False, patience: float = 0.0) -> list[Done]:
        """Copy ``unit``."""

    async def holders(self, unit: Unit) -> str:
        """Who has locked a table of ``unit``."""

    def close(self) -> None:
        """End the sessions."""


class Crew:
    """The relays of one round of a copy; an asynchronous context.

    :param command: argv of a process of relays, to which ``--link DESCRIPTOR`` is added.
    :param processes: how many of them; 0: the relays run here, at ``pace``.
    :param pressure: the wish for restraint that processes are told of, see :class:`.pace.Pace`. :param moved: told the bytes sent on.
    """

    def __init__(
        self,
        route: Route,
        *,
        command: t.Sequence[str] = (),
        processes: int = 0,
        pace: Pace | None = None,
        pressure: t.Callable[[], float] = no_pressure,
        moved: t.Callable[[int], None] = untold,
    ) -> None:
        self._route, self._pace, self._pressure, self._moved = route, pace, pressure, moved
        self._processes = [RelayProcess(command, Begin(route), moved) for dummy in range(processes)]
        self._teller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Crew:
        if self._processes:
            self._teller = asyncio.get_running_loop().create_task(self._tell())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._teller:
            self._teller.cancel()
        await asyncio.gather(*(process.end() for process in self._processes))

    def hand(self, number: int) -> Hand:
        """The relay ``number``, from 0."""
        if not self._processes:
            return Relay(self._route, self._moved, self._pace)
        return RemoteRelay(self._processes[number % len(self._processes)], number)

    async def _tell(self) -> None:
        """Let the processes know of the pressure when it changes."""
        while True:
            for process in self._processes:
                process.press(self._pressure())
            await asyncio.sleep(REST)


class RelayProcess:
    """A process of relays, started when it is first needed, and again when it has died."""

    def __init__(self, command: t.Sequence[str], begin: Begin, moved: t.Callable[[int], None]) -> None:
        self._command, self._begin, self._moved = command, begin, moved
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[t.Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pressed = 0.0
        self._starting = asyncio.Lock()

    async def call(self, relay: int, method: str, *arguments: t.Any, **options: t.Any) -> t.Any:
        """Have a relay do ``method``.

        :raises ConnectionResetError: the process died meanwhile. :raises Exception: what the relay raised.
        """
        async with self._starting:
            if self._writer is None:
                await self._start()
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.say(Call(number, relay, method, arguments, options))
        try:
            return await answer
        finally:
            self._waiting.pop(number, None)

    def say(self, message: t.Any) -> None:
        """Send ``message`` where there is somebody."""
        if self._writer is not None:
            send(self._writer, message)

    def press(self, pressure: float) -> None:
        """Tell the pressure if it is another."""
        if self._writer is not None and pressure != self._pressed:
            self._pressed = pressure
            self.say(Pressure(pressure))

    async def _start(self) -> None:
        here, there = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [*self._command, "--link", str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
            )  # nosec: our own engine
        finally:
            there.close()
        reader, self._writer = await asyncio.open_connection(sock=here)
        self._pressed = 0.0
        self.say(self._begin)
        self._listener = asyncio.get_running_loop().create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (message := await receive(reader)) is not None:
            if isinstance(message, Moved):
                self._moved(message.bytes)
            elif isinstance(message, Answer):
                self._take(message)
        lost, self._waiting = self._waiting, {}  # who asks from now on asks the next process
        await self._reap()
        for waiting in lost.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("a process of relays ended, its units are copied again"))

    def _take(self, answer: Answer) -> None:
        waiting = self._waiting.get(answer.number)
        if waiting is None or waiting.done():  # whoever asked has been cancelled
            return
        if answer.error is not None:
            waiting.set_exception(answer.error)
        else:
            waiting.set_result(answer.value)

    async def _reap(self) -> None:
        """Leave nothing of a process that has ended, or is told to: it does when its link is closed."""
        process, writer = self._process, self._writer
        self._process = self._writer = None
        if writer is not None:
            writer.close()
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    async def end(self) -> None:
        """End it, and wait until it has."""
        if self._listener:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        await self._reap()


class RemoteRelay:
    """A relay in a process of relays."""

    def __init__(self, process: RelayProcess, number: int) -> None:
        self._process, self._number = process, number

    async def marked(self, unit: Unit) -> list[Done]:
        """See :meth:`.relay.Relay.marked`."""
        return list(await self._process.call(self._number, "marked", unit))

    async def copy(self, unit: Unit, *, again: bool = False, patience: float = 0.0) -> list[Done]:
        """See :meth:`.relay.Relay.copy`."""
        return list(await self._process.call(self._number, "copy", unit, again=again, patience=patience))

    async def holders(self, unit: Unit) -> str:
        """See :meth:`.relay.Relay.holders`."""
        return str(await self._process.call(self._number, "holders", unit))

    def close(self) -> None:
        """See :meth:`.relay.Relay.close`."""
        self._process.say(Close(self._number))
