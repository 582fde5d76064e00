# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How long a migration may take (``limits.max_copy``, ``limits.max_wait``): providers' services end one after 72 hours and 7 days, here
it is asked for (B19).

Both are counted on the clock of the runtime host from a moment that the record keeps, so a service that was killed and one that was played
again count on. What has failed is as any failed migration: the slot stays, a run with a higher limit goes on.
"""

from __future__ import annotations

import datetime
import typing as t

from ..errors import ServiceError
from ..migration.catalogue import Catalogue, now
from ..spec import LimitsOptions

BEGAN, COPIED = "copy_began", "copied"
"""Facts of the record: when the base copy began, and when the rows of every database were on the target."""


class TimeLimits:
    """The limits of the migration ``key``."""

    def __init__(self, catalogue: Catalogue, key: str, limits: LimitsOptions) -> None:
        self._catalogue, self._key, self._limits = catalogue, key, limits

    @property
    def begun(self) -> bool:
        """Has this run or an earlier one begun the base copy?"""
        return BEGAN in (self._catalogue.get(self._key) or {"facts": {}})["facts"]

    def begin(self) -> None:
        """The base copy begins, unless an earlier run has begun it."""
        self._mark(BEGAN)

    def check(self, behind: t.Sequence[str]) -> float | None:
        """Seconds until the limit is reached that counts at present; None if none does.

        :param behind: databases whose rows are not all on the target.
        :raises ServiceError: PGM8012 the base copy takes too long, PGM8013 the cutover was not asked for in time.
        """
        if not behind:
            self._mark(COPIED)
        facts = (self._catalogue.get(self._key) or {"facts": {}})["facts"]
        copied = COPIED in facts  # in an earlier run, too: a database that comes back to its stream copies nothing
        limit = self._limits.max_wait if copied else self._limits.max_copy
        since = facts[COPIED if copied else BEGAN]
        if not limit:
            return None
        left = limit - (_moment(now()) - _moment(since)).total_seconds()
        if left <= 0:
            raise _waited(limit, since) if copied else _copying(limit, since, behind)
        return left

    def _mark(self, fact: str) -> None:
        if fact not in (self._catalogue.get(self._key) or {"facts": {}})["facts"]:
            self._catalogue.remember(self._key, **{fact: now()})


def _copying(limit: float, since: str, behind: t.Sequence[str]) -> ServiceError:
    return ServiceError(
        f"The base copy was not complete within limits.max_copy ({limit:g} s): it began at {since}; behind are {', '.join(behind)}.",
        code="PGM8012",
        hint="Raise limits.max_copy and play migrate: what is copied stays. Until then, or until cleanup, slots hold WAL on the source.",
        details={"limit": limit, "since": since, "databases": list(behind)},
    )


def _waited(limit: float, since: str) -> ServiceError:
    return ServiceError(
        f"The cutover was not made within limits.max_wait ({limit:g} s) after the base copy, which was complete at {since}.",
        code="PGM8013",
        hint="Raise limits.max_wait and play migrate: the stream goes on. Until then, or until cleanup, the slot holds WAL on the source.",
        details={"limit": limit, "since": since},
    )


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
