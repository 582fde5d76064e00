# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What our sessions are set to, whatever server, database and role say; and that nothing of it stays."""

from __future__ import annotations

import asyncio
import socket
import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect, connect_bulk

TIMEOUTS = ("statement_timeout", "idle_in_transaction_session_timeout")


@pytest.fixture
def impatient(source, source_database: str) -> str:
    """A database whose sessions may do nothing for long."""
    for name in TIMEOUTS:
        source.execute(f"ALTER DATABASE {source_database} SET {name} = '77ms'")
    return source_database


def test_time_limits_of_others_do_not_hold_for_us(source, impatient: str, spec_factory) -> None:
    """B8: overridden for our session, by both drivers, and for nobody else."""
    spec = spec_factory("sessions", [impatient])

    async def bulk() -> list[str]:
        conn = await connect_bulk(spec.source, impatient)
        try:
            return [await conn.fetchval(f"SHOW {name}") for name in TIMEOUTS]
        finally:
            await conn.close()

    with connect(spec.source, impatient) as conn:
        found = [conn.execute(f"SHOW {name}".encode()).fetchone()[0] for name in TIMEOUTS]
    assert found == asyncio.run(bulk()) == ["0", "0"]
    with source.connect(impatient) as conn:
        assert [conn.execute(f"SHOW {name}".encode()).fetchone() for name in TIMEOUTS] == [("77ms",), ("77ms",)]


def test_keepalives(source, source_database: str, spec_factory) -> None:
    """B7: a firewall that forgets an idle connection is noticed within a minute or so, by both drivers."""
    spec = spec_factory("sessions", [source_database])

    def options(sock: socket.socket) -> tuple[int, int, int, int]:
        tcp = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)]
        return (sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), tcp[0], tcp[1], tcp[2])

    async def bulk() -> tuple[int, int, int, int]:
        conn = await connect_bulk(spec.source, source_database)
        try:
            return options(t.cast(socket.socket, conn._transport.get_extra_info("socket")))
        finally:
            await conn.close()

    with connect(spec.source, source_database) as conn, socket.socket(fileno=socket.dup(conn.fileno())) as sock:
        assert options(sock) == (1, 30, 10, 3)
    assert asyncio.run(bulk()) == (1, 30, 10, 3)
