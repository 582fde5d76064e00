# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a module returns: whether something changed, the difference, and its own facts."""

from __future__ import annotations

import typing as t


class Result:
    """Grows while the module works; :meth:`to_dict` is handed to ``exit_json`` or ``fail_json``."""

    def __init__(self) -> None:
        self.changed = False
        self.facts: dict[str, t.Any] = {}
        self._diff: tuple[t.Any, t.Any] | None = None

    def plan(self, changed: bool, before: t.Any = None, after: t.Any = None) -> None:
        """What is going to be done; check mode ends here, so check and real run cannot tell different stories."""
        self.changed = changed
        if before is not None or after is not None:
            self._diff = differing(before, after) if changed else (before, before)

    def add(self, **facts: t.Any) -> None:
        """Return these too."""
        self.facts.update(facts)

    def to_dict(self, *, diff: bool = False) -> dict[str, t.Any]:
        """The result as plain data; with ``diff`` the difference as Ansible shows it."""
        data: dict[str, t.Any] = {"changed": self.changed, **self.facts}
        if diff and self._diff is not None:
            before, after = self._diff
            data["diff"] = {"before": before or {}, "after": after or {}}
        return data


def differing(before: t.Any, after: t.Any) -> tuple[t.Any, t.Any]:
    """Both without the keys that are equal: a difference shows what differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
        return {k: before[k] for k in keys if k in before}, {k: after[k] for k in keys if k in after}
    return before, after
