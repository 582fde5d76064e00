# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""More databases than one attempt takes: the attempt is repeated for the next set between the same servers until all are done (R65 to R67).

Each set is a migration of its own with its own record, called ``NAME-b1``, ``NAME-b2`` and so on. The record of each keeps the whole list
as it was when the first began, so that a database that is made or dropped meanwhile never moves another one into a set that is done.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import Conflict
from ..migration.catalogue import target_of
from ..migration.states import State
from ..postgres.catalog import is_selection
from ..spec import Endpoint, MigrationSpec, check_name
from ..validate.databases import split_batches

FACT = "set"
"""Where a record keeps which set it is: ``name`` of the whole, ``number`` from 1, ``of`` how many, ``databases`` of all sets."""

Record = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Sets:
    """All sets of one migration. ``begun`` are the records of those that exist, the newest last."""

    spec: MigrationSpec
    databases: tuple[str, ...]
    begun: tuple[Record, ...] = ()

    @property
    def count(self) -> int:
        """How many sets there are."""
        return len(split_batches(self.databases))

    def fact(self, number: int) -> dict[str, t.Any]:
        """What the record of set ``number`` keeps."""
        return {"name": self.spec.name, "number": number, "of": self.count, "databases": list(self.databases)}

    def one(self, number: int) -> MigrationSpec:
        """The migration of set ``number``.

        :raises SpecificationError: with its number the name is too long.
        """
        databases = split_batches(self.databases)[number - 1]
        return dataclasses.replace(self.spec, name=check_name(f"{self.spec.name}-b{number}"), databases=tuple(databases))

    @property
    def last(self) -> int:
        """The newest set that has begun; 0 before the first."""
        return self.begun[-1]["facts"][FACT]["number"] if self.begun else 0

    @property
    def due(self) -> int:
        """The set that is at work or comes next: none is begun before the one before it has succeeded."""
        if self.begun and self.begun[-1]["state"] != State.SUCCEEDED.value:
            return self.last
        return min(self.last + 1, self.count)


def begun(records: t.Sequence[Record], name: str, target: str | None) -> list[Record]:
    """The sets of the migration ``name`` to ``target`` that have a record, in their order; of the newest target if it is None."""
    ours = [record for record in records if record["facts"].get(FACT, {}).get("name") == name and target in (None, record["target"])]
    ours = [record for record in ours if record["target"] == ours[0]["target"]]
    return sorted(ours, key=lambda record: record["facts"][FACT]["number"])


def known_sets(spec: MigrationSpec, records: t.Sequence[Record]) -> Sets | None:
    """The sets of ``spec`` as they were recorded; None if it has none.

    :raises Conflict: they were made of other databases.
    """
    ours = begun(records, spec.name, target_of(spec.target))
    if not ours:
        return None
    databases = ours[0]["facts"][FACT]["databases"]
    if not is_selection(spec.databases) and list(dict.fromkeys(spec.databases)) != databases:
        raise Conflict(
            f"A migration named {spec.name} to this target exists with another specification; it differs in databases.",
            hint="Choose another name, or give the specification that it was created with.",
            details={"differences": {"databases": {"recorded": databases, "asked": list(spec.databases)}}},
        )
    return Sets(spec, tuple(databases), tuple(ours))


def newest(records: t.Sequence[Record], name: str, target: str | None) -> Record | None:
    """The record that the migration ``name`` means, where it runs in sets: that of the newest set."""
    ours = begun(records, name, target)
    return ours[-1] if ours else None


def key_of_set(records: t.Sequence[Record], name: str, target: Endpoint) -> str | None:
    """The key of the newest set of ``name``; None where it has no sets."""
    record = newest(records, name, target_of(target))
    return record["key"] if record else None
