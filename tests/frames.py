# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Frames of the replication stream as a walsender sends them, for tests without a server."""

from __future__ import annotations

import struct

DATA, KEEPALIVE = 0x77, 0x6B


def data(lsn: int, payload: bytes) -> bytes:
    """XLogData: a message of the output plugin at ``lsn``."""
    return struct.pack(">cIcQQq", b"d", 29 + len(payload), b"w", lsn, lsn, 0) + payload


def keepalive(lsn: int, *, reply: bool = False) -> bytes:
    """A keepalive that says: everything before ``lsn`` has been sent."""
    return struct.pack(">cIcQqB", b"d", 22, b"k", lsn, 0, reply)


def frame(kind: int, lsn: int, payload: bytes) -> bytes:
    """Either of them."""
    return data(lsn, payload) if kind == DATA else keepalive(lsn)
