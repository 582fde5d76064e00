# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Log sequence numbers: 64-bit positions in the WAL, integers inside, ``X/X`` text outside (manual 8.20)."""

from __future__ import annotations


def parse_lsn(text: str) -> int:
    """The position that ``text`` (``16/B374D848``) names.

    :raises ValueError: if it is no LSN.
    """
    high, sep, low = text.partition("/")
    if not sep or not 1 <= len(high) <= 8 or not 1 <= len(low) <= 8:
        raise ValueError(f"not an LSN: {text!r}")
    return (int(high, 16) << 32) | int(low, 16)


def format_lsn(lsn: int) -> str:
    """``lsn`` as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
