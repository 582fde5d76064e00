# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a copy and its processes of relays say to each other: pickled messages, each behind its length, over a socket pair.

Both ends are one engine of one version, started by each other, so nobody else's bytes are ever read.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pickle  # nosec: see the module
import struct
import typing as t

from ..errors import CopyError
from .relay import Route

_LENGTH = struct.Struct("!I")


@dataclasses.dataclass(frozen=True)
class Begin:
    """First of all: the way that the relays go."""

    route: Route


@dataclasses.dataclass(frozen=True)
class Call:
    """Have ``relay`` do ``method``; answered with the same ``number``."""

    number: int
    relay: int
    method: str
    arguments: tuple[t.Any, ...]
    options: dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Close:
    """End the sessions of ``relay``."""

    relay: int


@dataclasses.dataclass(frozen=True)
class Pressure:
    """The wish for restraint from now on, from 0 to 1."""

    value: float


@dataclasses.dataclass(frozen=True)
class Moved:
    """So many bytes were sent on since the last word."""

    bytes: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of call ``number``: its value, or what it raised."""

    number: int
    value: t.Any = None
    error: BaseException | None = None


async def receive(reader: asyncio.StreamReader) -> t.Any:
    """The next message; None where the other side has gone."""
    try:
        head = await reader.readexactly(_LENGTH.size)
        return pickle.loads(await reader.readexactly(_LENGTH.unpack(head)[0]))  # nosec: see the module
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def send(writer: asyncio.StreamWriter, message: t.Any) -> None:
    """Say ``message``; nothing happens where nobody is there any more, which :func:`receive` tells."""
    if not writer.is_closing():
        body = pickle.dumps(message)
        writer.write(_LENGTH.pack(len(body)) + body)


def portable(error: BaseException) -> BaseException:
    """``error`` as it can be sent: itself, or its words where it does not survive the way."""
    try:
        pickle.loads(pickle.dumps(error))  # nosec: our own
    except Exception:  # whatever an unknown class does there
        return CopyError(f"{type(error).__name__}: {error}", sqlstate=str(getattr(error, "sqlstate", None) or ""))
    return error
