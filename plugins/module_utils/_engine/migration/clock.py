# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Spans of time from one process to another that no step of this host's clock changes.

The clock that shows the day may be stepped at any moment, by NTP or by hand. Deadlines and spans within a process are taken from
``time.monotonic()``, which is the same for all processes of a boot of Linux; what is kept in a file needs the boot beside it.
"""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Linux's name of this boot of the host."""


def mark() -> dict[str, t.Any]:
    """The present moment, to be kept beside :func:`.catalogue.now`: ``boot``, and ``uptime``, seconds of the monotonic clock."""
    try:
        boot = BOOT.read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return {"boot": boot, "uptime": round(time.monotonic(), 3)}


def span(begin: t.Mapping[str, t.Any] | None, end: t.Mapping[str, t.Any] | None, otherwise: float) -> float:
    """Seconds from one :func:`mark` to another. Where they are not of the same boot, or one is not known, it is ``otherwise``, the seconds
    by the clock that shows the day, or 0 if that went backwards."""
    if begin and end and begin["boot"] and begin["boot"] == end["boot"]:
        return float(end["uptime"] - begin["uptime"])
    return max(0.0, otherwise)
