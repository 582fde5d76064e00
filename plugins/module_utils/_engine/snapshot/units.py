# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The order in which the units of a base copy are taken: as planned, and behind all others those whose table somebody has locked.

A lock of somebody else's costs the tables it is on, not the copy: the relays go on with what is free.
"""

from __future__ import annotations

import collections
import time
import typing as t

from .plan import Unit

LOCK_PAUSE = 2.0
"""Seconds between two attempts at a unit whose table is locked."""


class Units:
    """What is left to copy, and what is being copied. For one event loop: nothing here is safe to use from several threads."""

    def __init__(self, units: t.Iterable[Unit] = ()) -> None:
        self._free = collections.deque(units)
        self._locked: collections.deque[tuple[Unit, float]] = collections.deque()
        self._busy: dict[int, Unit] = {}
        self._met: set[int] = set()
        self._kept: list[Unit] = []  # so that no other object gets the id of one
        self._moved = -1
        self._alone = 0.0  # since when there has been nothing else

    def __len__(self) -> int:
        return len(self._free) + len(self._locked)

    @property
    def over(self) -> bool:
        """Is nothing left, and nothing being copied that might come back?"""
        return not (self._free or self._locked or self._busy)

    @property
    def others(self) -> bool:
        """Does anything wait that nobody has locked?"""
        return bool(self._free)

    def take(self) -> Unit | None:
        """The next unit; None if there is none at present: look again soon. It is :meth:`release`\\ d or comes back."""
        if self._free:
            unit = self._free.popleft()
        elif self._locked and self._locked[0][1] <= time.monotonic():
            unit = self._locked.popleft()[0]
        else:
            return None
        self._busy[id(unit)] = unit
        return unit

    def release(self, unit: Unit) -> None:
        """``unit`` is no longer worked at."""
        self._busy.pop(id(unit), None)

    def first(self, units: t.Iterable[Unit]) -> None:
        """Take ``units`` next."""
        self._free.extendleft(units)

    def last(self, units: t.Iterable[Unit]) -> None:
        """Take ``units`` after all that is free."""
        self._free.extend(units)

    def drop(self, hopeless: t.Callable[[Unit], bool]) -> None:
        """Forget what nobody can copy now."""
        self._free = collections.deque(unit for unit in self._free if not hopeless(unit))
        self._locked = collections.deque(item for item in self._locked if not hopeless(item[0]))

    def locked(self, unit: Unit, moved: int) -> float:
        """``unit`` could not be had; it is tried again in :data:`LOCK_PAUSE`.

        :param moved: bytes that all relays have copied so far: while that grows, something goes on.
        :return: for how many seconds there has been nothing but locked ones to do.
        """
        if id(unit) not in self._met:
            self._met.add(id(unit))
            self._kept.append(unit)
        now = time.monotonic()
        self._locked.append((unit, now + LOCK_PAUSE))
        if self._free or moved != self._moved or any(number not in self._met for number in self._busy):
            self._alone, self._moved = now, moved
        return now - self._alone
