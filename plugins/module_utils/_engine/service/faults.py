# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What an error of one database means for that database: is it worth another attempt, when, and which of two errors tells more."""

from __future__ import annotations

from ..errors import MigrationError

LOST = ("PGM4010", "PGM4004", "PGM4001", "PGM4002", "PGM4006")
"""Codes after which changes are lost for good: no slot, no spool, WAL removed, slot dropped by our own guard. The later ones say more of
the cause: who meets a slot that the guard has dropped can only say that it is gone."""

RETRY_PAUSES = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds before another attempt, by the number of attempts before: whoever removes the cause need not play anything, and a cause that
stays costs little."""


def lost(error: MigrationError) -> bool:
    """Does ``error`` say that changes are lost: no attempt can help any more?"""
    return error.code in LOST


def weight(error: MigrationError | None) -> int:
    """Of two errors of one database the heavier is the one to tell; 0 without one."""
    if error is None:
        return 0
    return 2 + LOST.index(error.code) if lost(error) else 1


def pause_before(attempts: int) -> float:
    """Seconds to wait when ``attempts`` have failed."""
    return RETRY_PAUSES[min(max(attempts, 1), len(RETRY_PAUSES)) - 1]
