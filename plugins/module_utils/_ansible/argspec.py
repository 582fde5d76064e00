# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Argument specifications that can be put together: what a module takes is the sum of what its parts take."""

from __future__ import annotations

import typing as t


class ArgumentSpec:
    """The arguments of a module and what must hold between them.

    :param options: Ansible's ``argument_spec``.
    :param required_if: Ansible's ``required_if`` rows.
    """

    def __init__(self, options: t.Mapping[str, t.Any] | None = None, *, required_if: t.Sequence[t.Sequence[t.Any]] = ()) -> None:
        self.options: dict[str, t.Any] = dict(options or {})
        self.required_if: list[t.Sequence[t.Any]] = list(required_if)

    def merge(self, other: ArgumentSpec) -> ArgumentSpec:
        """Both together; neither is changed.

        :raises ValueError: if the same option is in both, a mistake in our own code.
        """
        twice = sorted(set(self.options) & set(other.options))
        if twice:
            raise ValueError(f"options given twice: {', '.join(twice)}")
        return ArgumentSpec({**self.options, **other.options}, required_if=[*self.required_if, *other.required_if])

    def update(self, **options: t.Mapping[str, t.Any]) -> ArgumentSpec:
        """These options in addition."""
        return self.merge(ArgumentSpec(options))
