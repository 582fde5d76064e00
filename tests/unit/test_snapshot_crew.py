# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How many processes the relays get, and what survives the way from one of them to the worker."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

import asyncpg
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CopyError
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.crew import LARGE, RelayProcess, processes_for
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.relay import Route, SnapshotGone
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.relaylink import Begin, portable
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import Endpoint
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("wanted", "jobs", "size", "rate", "free", "count"),
    [
        (0, 8, LARGE, 0, 8, 7),
        (0, 4, LARGE, 0, 16, 4),
        (0, 2, LARGE, 0, 2, 0),  # this process does it itself
        (0, 8, LARGE - 1, 0, 8, 0),
        (3, 8, 1, 0, 2, 3),
        (3, 2, 1, 0, 2, 2),
        (1, 8, LARGE, 0, 8, 0),
        (3, 8, LARGE, 1_000_000, 8, 0),
    ],
)
def test_processes(wanted: int, jobs: int, size: int, rate: int, free: int, count: int) -> None:
    assert processes_for(wanted, jobs, size, rate, free) == count


@given(st.integers(0, 99), st.integers(1, 99), st.integers(0, 1 << 50), st.integers(0, 1 << 30), st.integers(1, 256))
def test_never_more_processes_than_relays(wanted: int, jobs: int, size: int, rate: int, free: int) -> None:
    assert processes_for(wanted, jobs, size, rate, free) <= jobs


class Odd(Exception):
    """One whose arguments do not make it again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def test_errors_survive_the_way() -> None:
    """What the worker judges an error by: its class, its words, SQLSTATE and table."""
    refused = asyncpg.PostgresError.new({"S": "ERROR", "C": "23505", "M": "duplicate key", "s": "shop", "t": "item", "D": "Key (id)=(1)"})
    arrived = pickle.loads(pickle.dumps(portable(refused)))
    assert isinstance(arrived, asyncpg.UniqueViolationError)
    assert (arrived.sqlstate, arrived.schema_name, arrived.table_name, arrived.detail) == ("23505", "shop", "item", "Key (id)=(1)")
    gone = pickle.loads(pickle.dumps(portable(SnapshotGone("it was emptied"))))
    assert gone.reason == "it was emptied"
    ours = pickle.loads(pickle.dumps(portable(CopyError("no", code="PGM3012", sqlstate="42501", hint="do", details={"a": 1}))))
    assert ours.to_dict() == CopyError("no", code="PGM3012", sqlstate="42501", hint="do", details={"a": 1}).to_dict()
    assert "Odd: ab" in str(portable(Odd("a", "b")))


HOSTS = """
import asyncio, pathlib, socket, sys, time
sys.path.insert(0, sys.argv[1])
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.relaylink import Answer, receive, send
link, first = socket.socket(fileno=int(sys.argv[-1])), pathlib.Path(sys.argv[2])
async def main():
    reader, writer = await asyncio.open_connection(sock=link)
    await receive(reader), await receive(reader)
    if not first.exists():
        first.touch()
        writer.close()
        time.sleep(1)  # it has gone for whoever speaks to it, and is not yet gone
        return
    await asyncio.sleep(2)  # the first is being waited for at its end
    send(writer, Answer(2, "done"))
    await receive(reader)
asyncio.run(main())
"""
"""Two processes: one that goes away at the first call, and one that answers the second."""


def test_a_call_to_the_next_process_is_not_lost_with_the_last_one(tmp_path: Path) -> None:
    """While the end of a process is waited for, its relays begin again in another one."""
    root = next(entry for entry in sys.path if entry.endswith("link"))
    end = Endpoint("source", "other", "h", "u")

    async def ask() -> str:
        process = RelayProcess(
            [sys.executable, "-c", HOSTS, root, str(tmp_path / "first")],
            Begin(Route(end, end, "d", "s", 0, {}, "UTF8")),
            lambda dummy: None,
        )
        lost = asyncio.ensure_future(process.call(0, "holders", None))
        while process._writer or not (tmp_path / "first").exists():  # pylint: disable=protected-access
            await asyncio.sleep(0.01)
        answer = await process.call(0, "holders", None)
        with pytest.raises(ConnectionResetError):
            await lost
        await process.end()
        return str(answer)

    assert asyncio.run(asyncio.wait_for(ask(), 60)) == "done"
