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

ANSWER_SECONDS = {"precheck": 300.0, "cutover": 300.0}
"""How long an answer may take, where that is more than a moment: the pre-checks ask both servers much, over whatever line."""

Handler = t.Callable[[t.Dict[str, t.Any]], t.Awaitable[t.Dict[str, t.Any]]]


@contextlib.contextmanager
def _short(path: Path) -> t.Iterator[str]:
    """A short name for ``path`` that is good inside the block."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class _Gone(Exception):
    """Who asked has hung up."""


async def _while_there(work: t.Awaitable[dict[str, t.Any]], reader: asyncio.StreamReader) -> dict[str, t.Any]:
    """What ``work`` returns; it is given up when who asked hangs up before: nobody would hear what it begins.

    :raises _Gone: they did.
    """
    task, end = asyncio.ensure_future(work), asyncio.ensure_future(reader.read())
    try:
        await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise _Gone
    finally:
        for one in (task, end):
            one.cancel()
        await asyncio.gather(task, end, return_exceptions=True)


async def serve_control(path: Path, handle: Handler) -> asyncio.AbstractServer:
    """Listen on ``path`` and answer each line with what ``handle`` returns or raises."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer: dict[str, t.Any]
        try:
            answer = {"result": await _while_there(handle(json.loads(await reader.readline())), reader)}
        except _Gone:
            writer.close()
            return
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


def ask_service(path: Path, command: str, *, timeout: float | None = None, **arguments: t.Any) -> dict[str, t.Any]:
    """Send ``command`` to the service behind ``path`` and return its answer.

    :param timeout: seconds, by default what the command may take. The service gives up what nobody waits for any more.

    :raises ServiceError: if nobody answers. :raises MigrationError: what the service answers with.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conn, _short(path) as name:
            conn.settimeout(ANSWER_SECONDS.get(command, 30.0) if timeout is None else timeout)
            conn.connect(name)
            conn.sendall((json.dumps({"command": command, **arguments}) + "\n").encode())
            with conn.makefile("r", encoding="utf-8") as reader:
                answer = json.loads(reader.readline() or "{}")
    except TimeoutError as exc:
        raise ServiceError(
            f"The migration service behind {path} is still busy with {command}; it gives up what nobody waits for, so nothing was begun.",
            code="PGM8004",
            hint="See what keeps the servers from answering (pg_stat_activity, the line between them), then play again.",
        ) from exc
    except (OSError, ValueError) as exc:
        raise ServiceError(
            f"The migration service behind {path} does not answer: {exc}",
            code="PGM8004",
            hint="Run the playbook pgops.migration.migrate: it starts the service again.",
        ) from exc
    if answer.get("error"):
        raise MigrationError.from_dict(answer["error"])
    return dict(answer.get("result") or {})
