# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Databases with a locale provider of their own (ICU from 15 on, builtin from 17 on): the target's sorts and folds as the source's."""

from __future__ import annotations

import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target, read_facts
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from faults import lacks, look
from pair import describe, make_source, make_target

BEHAVES = "SELECT array(SELECT w FROM unnest(ARRAY['z', 'ä', 'B', 'a', 'a-b', 'ab', 'Æ']) w ORDER BY w), upper('ß'), lower('İ'), 'a' < 'B'"

CASES = [
    ("icu", 15, "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk'", "i", "de-u-co-phonebk"),
    ("icu", 15, "LOCALE_PROVIDER icu ICU_LOCALE 'en-u-kn-true' LC_COLLATE 'C' LC_CTYPE 'C'", "i", "en-u-kn-true"),
    ("icu", 16, "LOCALE_PROVIDER icu ICU_LOCALE 'en' ICU_RULES '&a < z'", "i", "en"),
    ("", 17, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'", "b", "C.UTF-8"),
    ("", 18, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST'", "b", "PG_UNICODE_FAST"),
]


@pytest.fixture(scope="module")
def ends() -> t.Iterator[t.Callable[[int], tuple[lab.Server, lab.Server]]]:
    """``ends(least)``: a source of the oldest major from ``least`` on that this machine has, and a target of the newest."""
    known = lab.installations()
    made: dict[int, tuple[lab.Server, lab.Server]] = {}

    def make(least: int) -> tuple[lab.Server, lab.Server]:
        major = next((major for major in known if major >= least), None)
        if major is None:
            pytest.skip(f"no PostgreSQL of version {least} or later on this machine")
        if major not in made:
            made[major] = (
                make_source(f"locale-{major}", bindir=known[major]),
                make_target(f"locale-target-{major}", bindir=known[max(known)]),
            )
        return made[major]

    yield make
    for pair in made.values():
        for server in pair:
            server.drop()


@pytest.mark.parametrize(("need", "least", "options", "provider", "locale"), CASES, ids=lambda case: str(case)[:24])
def test_the_database_sorts_as_the_source_s(need: str, least: int, options: str, provider: str, locale: str, ends: t.Any) -> None:
    source, target = ends(least)
    if need and (lacks(source, need) or lacks(target, need)):
        pytest.skip(f"a server was built without {need}")
    source.create_database("sorted", "app", f"TEMPLATE template0 {options}")
    try:
        spec = MigrationSpec.from_dict(describe(source, target, "locale", ["sorted"]))
        assert look(spec, "PGM2411") == []
        prepare_target(spec, "sorted")
        with source.connect() as left, target.connect() as right:
            ours, theirs = read_facts(left, "sorted"), read_facts(right, "sorted")
        assert ours and theirs and (theirs.provider, theirs.locale) == (ours.provider, ours.locale) == (provider, locale)
        assert (theirs.collate, theirs.ctype, theirs.encoding, theirs.rules) == (ours.collate, ours.ctype, ours.encoding, ours.rules)
        assert target.execute(BEHAVES, "sorted") == source.execute(BEHAVES, "sorted")
    finally:
        source.drop_database("sorted")
        target.drop_database("sorted")
