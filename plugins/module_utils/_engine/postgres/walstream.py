# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The streaming replication protocol (manual 55.4), read in large buffers: START_REPLICATION and COPY BOTH.

asyncpg does the login (TLS, SCRAM) as for the base copy; then its transport is taken over and the messages are read as they come, hundreds
at a time. libpq hands them out one by one, each through an allocation and a call of Python's, which costs several times what PostgreSQL
needs to send them. libpq's own socket cannot be read past it where TLS is used; a transport of asyncio's can.

The event loop runs only within :meth:`WalStream.receive`: whoever does not call it does not read, and the kernel slows the server down.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
import typing as t

from ..errors import MigrationError
from ..spec import Endpoint
from .identifiers import quote_ident
from .lsn import format_lsn
from .replication import PG_EPOCH, ServerRefused
from .session import connect_bulk

BUFFER_BYTES = 1 << 20
SPARE = 64
"""Bytes behind the buffer's content that can be read, so that a struct fits at its end."""

PATIENCE_MS = 60_000
"""Milliseconds after which a server that acknowledges nothing of what it was sent is gone. Keepalives (:data:`.session.KEEPALIVES`) find
out about a silent line on which nothing is on its way; here feedback always is, and by itself Linux sends that again for 15 minutes."""

NEAR = 0.0005
"""Round trip (seconds) below which a small window still lets more than 100 MB/s through."""

NEAR_WINDOW = 32 << 10
"""The receive window (bytes) for a server that is near. A walsender sends each message apart; while our window is full they wait in its
kernel and go together then, which halves its CPU. The window is clamped rather than the buffer made small: over a buffer of fixed size the
kernel takes back a window that it gave, and then drops the server's acknowledgements until we read again, so that no answer of ours leaves
while the spool is paused (seen with Linux 6.18; ``wal_sender_timeout`` ends the stream then)."""

_RTT = struct.Struct("=68xI")
"""Of Linux's ``struct tcp_info``: the smoothed round trip in microseconds."""

_FEEDBACK = struct.Struct(">cIcQQQqB")
_HEAD = struct.Struct(">BI")
ERROR, NOTICE, PARAMETER, COPY_BOTH = 0x45, 0x4E, 0x53, 0x57  # 'E', 'N', 'S', 'W'


class WalStream:
    """A walsender that streams; what it sent is in ``buffer[:filled]`` and stays there until :meth:`consume`.

    The buffer holds whole protocol messages but for its end. It is at least :data:`SPARE` bytes longer than ``filled``.

    :raises ConnectionFailed: if the connection cannot be opened (the reasons of R26).
    """

    def __init__(self, endpoint: Endpoint, database: str, purpose: str = "receiver") -> None:
        self.buffer = bytearray(BUFFER_BYTES + SPARE)
        self.filled = 0
        self._lost: str | None = None
        self._loop = asyncio.new_event_loop()
        try:
            self._login = self._loop.run_until_complete(connect_bulk(endpoint, database, purpose=purpose, replication=True))
        except BaseException:
            self._loop.close()
            raise
        self._transport: t.Any = self._login._transport  # no public name; there is no other way to it

    def start(self, slot: str, lsn: int, options: t.Mapping[str, str]) -> None:
        """START_REPLICATION from ``lsn``; afterwards the buffer holds frames.

        :raises ServerRefused: with the plugin's or the server's complaint.
        """
        listed = ", ".join(f"{quote_ident(k)} {_option(v)}" for k, v in options.items())
        sql = f"START_REPLICATION SLOT {quote_ident(slot)} LOGICAL {format_lsn(lsn)}" + (f" ({listed})" if listed else "")
        peer = self._transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            _tune(peer)
        self._transport.set_protocol(_Intake(self, self._loop.stop))
        body = sql.encode() + b"\x00"
        self._transport.write(b"Q" + (len(body) + 4).to_bytes(4, "big") + body)
        while True:
            self.receive(60.0)
            if self.filled >= _HEAD.size and self.buffer[0] == COPY_BOTH:
                length = 1 + _HEAD.unpack_from(self.buffer)[1]
                if self.filled >= length:
                    self.consume(length)
                    return
            else:
                self.skip()

    def receive(self, timeout: float) -> bool:
        """Wait until the server sent something, :meth:`wake` is called or ``timeout`` seconds have passed; True if more has come.

        :raises ServerRefused: if the connection broke and nothing was left to read.
        """
        before = self.filled
        if self._lost is None:
            timer = self._loop.call_later(timeout, self._loop.stop)
            self._loop.run_forever()
            timer.cancel()
        if self.filled > before:
            return True
        if self._lost is not None:
            raise ServerRefused(self._lost)
        return False

    @property
    def ended(self) -> bool:
        """Is the connection gone? What is in the buffer may say why."""
        return self._lost is not None

    def wake(self) -> None:
        """End :meth:`receive`; any thread may call."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._loop.stop)

    def consume(self, size: int) -> None:
        """The first ``size`` bytes of the buffer are not needed any more; what follows moves to its beginning."""
        rest = self.filled - size
        buffer = self.buffer
        if len(buffer) > BUFFER_BYTES + SPARE and rest <= BUFFER_BYTES // 2:
            self.buffer = bytearray(BUFFER_BYTES + SPARE)
        self.buffer[:rest] = buffer[size : self.filled]
        self.filled = rest

    def room(self) -> memoryview:
        """Where the next bytes go. A message that is larger than the buffer gets a larger one."""
        size = len(self.buffer) - SPARE
        if self.filled >= size:
            announced = 1 + _HEAD.unpack_from(self.buffer)[1]
            larger = bytearray(max(size * 2, min(announced, size * 8)) + SPARE)
            larger[: self.filled] = self.buffer[: self.filled]
            self.buffer, size = larger, len(larger) - SPARE
        return memoryview(self.buffer)[self.filled : size]

    def skip(self) -> bool:
        """Pass over what is no frame at the buffer's beginning: a notice, a parameter's new value. False if it is not whole yet.

        :raises ServerRefused: if it is an error, or the end of the stream.
        """
        if self.filled < _HEAD.size:
            return False
        kind, length = _HEAD.unpack_from(self.buffer)
        if kind not in (ERROR, NOTICE, PARAMETER):
            raise ServerRefused("the server ended the stream" if kind in b"cCZ" else f"unknown message {chr(kind)!r} in the stream")
        if self.filled <= length:
            return False
        body = bytes(self.buffer[_HEAD.size : 1 + length])
        self.consume(1 + length)
        if kind == ERROR:
            raise _refused(body)
        return True

    def feedback(self, written: int, flushed: int, applied: int, *, reply: bool = False) -> None:
        """Tell the server how far we are; ``flushed`` is what it may forget. ``reply`` asks for a keepalive at once."""
        now = int((time.time() - PG_EPOCH) * 1_000_000)
        if self._lost is None:
            self._transport.write(_FEEDBACK.pack(b"d", _FEEDBACK.size - 1, b"r", written, flushed, applied, now, reply))

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self._lost = self._lost or reason

    def close(self) -> None:
        """End the connection; the server releases the slot."""
        if self._loop.is_closed():
            return
        if self._lost is None:
            self._transport.write(b"X\x00\x00\x00\x04")
        self._login.terminate()
        for dummy in range(2):  # the transport closes its socket in the next round; a call of wake may end one early
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
        self._loop.close()


class _Intake(asyncio.BufferedProtocol):
    """Bytes into the buffer of a :class:`WalStream`; each portion ends the loop's round."""

    def __init__(self, stream: WalStream, stop: t.Callable[[], None]) -> None:
        self._stream, self._stop = stream, stop

    def get_buffer(self, sizehint: int) -> memoryview:
        """See :class:`asyncio.BufferedProtocol`."""
        return self._stream.room()

    def buffer_updated(self, nbytes: int) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        self._stream.filled += nbytes
        self._stop()

    def eof_received(self) -> bool:
        """See :class:`asyncio.BufferedProtocol`."""
        self._stream.lost("the server closed the connection")
        self._stop()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        self._stream.lost(f"connection lost: {exc}" if exc else "the server closed the connection")
        self._stop()


def _tune(peer: t.Any) -> None:
    """Find out when the server is gone; take a near server's messages in large portions."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PATIENCE_MS)
    if hasattr(socket, "TCP_INFO"):
        info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size)
        if len(info) == _RTT.size and _RTT.unpack(info)[0] / 1e6 < NEAR:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, NEAR_WINDOW)


def _refused(body: bytes) -> ServerRefused:
    """What an ErrorResponse says (manual 55.8)."""
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\x00") if part}
    return ServerRefused(" ".join(fields.get(b"M", "").split()) or "the server gave no reason", fields.get(b"C", ""))


def _option(value: str) -> str:
    """An option of START_REPLICATION: its grammar knows doubled quotes alone, a backslash means itself (repl_scanner.l)."""
    if "\x00" in value:
        raise MigrationError("an option of an output plugin cannot hold the character NUL")
    return "'" + value.replace("'", "''") + "'"
