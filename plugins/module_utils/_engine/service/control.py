# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The control socket: one JSON line in, one JSON line out. Only its owner can open it: the folder is 0700.

A Unix socket's path may have 107 bytes only, so both ends name it through a descriptor of its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import typing as t
from pathlib import Path

from ..errors import MigrationError, ServiceError

Handler = t.Callable[[t.Dict[str, t.Any]], t.Awaitable[t.Dict[str, t.Any]]]


@contextlib.contextmanager
def _short(path: Path) -> t.Iterator[str]:
    """A short name for ``path`` that is good inside the block."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


async def serve_control(path: Path, handle: Handler) -> asyncio.AbstractServer:
    """Listen on ``path`` and answer each line with what ``handle`` returns or raises."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer: dict[str, t.Any]
        try:
            answer = {"result": await handle(json.loads(await reader.readline()))}
        except MigrationError as exc:
            answer = {"error": exc.to_dict()}
        except (ValueError, TypeError) as exc:
            answer = {"error": MigrationError(f"Bad command: {exc}", code="PGM8003").to_dict()}
        writer.write((json.dumps(answer, default=str) + "\n").encode())
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(path) as name:
        listener.bind(name)
    path.chmod(0o600)
    return await asyncio.start_unix_server(talk, sock=listener)


def ask_service(path: Path, command: str, *, timeout: float = 30.0, **arguments: t.Any) -> dict[str, t.Any]:
    """Send ``command`` to the service behind ``path`` and return its answer.

    :raises ServiceError: if nobody answers. :raises MigrationError: what the service answers with.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conn, _short(path) as name:
            conn.settimeout(timeout)
            conn.connect(name)
            conn.sendall((json.dumps({"command": command, **arguments}) + "\n").encode())
            with conn.makefile("r", encoding="utf-8") as reader:
                answer = json.loads(reader.readline() or "{}")
    except (OSError, ValueError) as exc:
        raise ServiceError(
            f"The migration service behind {path} does not answer: {exc}",
            code="PGM8004",
            hint="Run the playbook pgops.migration.migrate: it starts the service again.",
        ) from exc
    if answer.get("error"):
        raise MigrationError.from_dict(answer["error"])
    return dict(answer.get("result") or {})
