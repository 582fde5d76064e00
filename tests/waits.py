# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
import typing as t


def until(reached: t.Callable[[], t.Any], what: str = "", seconds: float = 60.0) -> t.Any:
    """Look until ``reached()`` gives something, and give it; fails after ``seconds``, saying ``what`` was waited for."""
    limit = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < limit, f"waited {seconds:g} s for {what or 'a condition'}"
        time.sleep(0.02)
    return found
