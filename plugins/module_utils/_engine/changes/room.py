# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Free room on the source's disk. SQL does not tell it; where the source is this very machine, the file system does."""

from __future__ import annotations

import ipaddress
import os
import typing as t

from ..postgres.drivers import psycopg


def source_room(conn: psycopg.Connection[t.Any]) -> int | None:
    """Bytes that the server may still write to the disk of its WAL; None where that cannot be known: the server is another machine, or does
    not say where its data is (``data_directory`` is for members of ``pg_read_all_settings``)."""
    if not _is_here(conn.info):
        return None
    try:
        row = conn.execute("SELECT current_setting('data_directory')").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    folder = str(row[0]) if row else ""
    for path in (os.path.join(folder, "pg_wal"), folder):  # the former may be another disk, and may be hidden from us
        try:
            found = os.statvfs(path)
        except OSError:
            continue
        return found.f_bavail * found.f_frsize
    return None


def _is_here(info: psycopg.ConnectionInfo) -> bool:
    if info.host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(info.hostaddr or info.host).is_loopback
    except ValueError:
        return False
