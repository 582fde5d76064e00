# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Sequences of every kind: ahead on the target until the cutover of an online migration, exact afterwards, and exact offline."""

from __future__ import annotations

import typing as t

import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.proof import verify_all
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.sequences import MARGIN
from pair import Login
from rows import differences, sequences

SEQUENCES = """
CREATE SEQUENCE plain; SELECT nextval('plain');
CREATE SEQUENCE fives INCREMENT 5 START 100; SELECT nextval('fives');
CREATE SEQUENCE unused START 7;
CREATE SEQUENCE down INCREMENT -2 MINVALUE -9223372036854775807 START -1; SELECT nextval('down');
CREATE SEQUENCE widest INCREMENT 3 MINVALUE -9223372036854775808 MAXVALUE 9223372036854775807 START -9223372036854775808;
CREATE SEQUENCE at_top INCREMENT 3 MAXVALUE 9223372036854775807 START 9223372036854775800; SELECT nextval('at_top');
CREATE SEQUENCE at_bottom INCREMENT -3 MINVALUE -100 MAXVALUE 0 START 0; SELECT nextval('at_bottom');
CREATE SEQUENCE used_up MAXVALUE 3; SELECT nextval('used_up') FROM generate_series(1, 3);
CREATE SEQUENCE round MAXVALUE 50 CYCLE; SELECT nextval('round');
CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, small smallserial);
INSERT INTO item DEFAULT VALUES;
"""
AHEAD = {
    "public.plain": (1 + MARGIN, True),
    "public.fives": (100 + 5 * MARGIN, True),
    "public.unused": (7 + MARGIN, False),
    "public.down": (-1 - 2 * MARGIN, True),
    "public.widest": (-9223372036854775808 + 3 * MARGIN, False),
    "public.at_top": (9223372036854775806, True),
    "public.at_bottom": (-99, True),
    "public.used_up": (3, True),
    "public.round": (1, True),
    "public.item_id_seq": (1 + MARGIN, True),
    "public.item_small_seq": (1 + MARGIN, True),
}
"""What the target has before the cutover. At a limit it is the last value that the sequence would give."""


def make(source: lab.Server, database: str, owner: Login) -> None:
    """The sequences, as an application's owner makes them."""
    with source.connect(database, owner.name, owner.password) as conn:
        conn.execute(t.cast(t.Any, SEQUENCES))


def test_ahead_until_the_cutover(host, source, target, owner, source_database, spec_factory) -> None:
    """B14: nothing that the source gave out meanwhile is given out again by a target that has to serve early; no verification takes that
    for a difference; after the cutover every value is the source's own, also one that is behind what the target had."""
    make(source, source_database, owner)
    spec = spec_factory("ahead", [source_database])
    host.manager.start(spec)
    host.until_waiting(spec.key)
    with target.connect(source_database) as there:
        assert sequences(there) == AHEAD
    paths = MigrationPaths(host.home, spec.key)
    assert [verify_all(paths, spec, streaming=streaming)["equal"] for streaming in (True, False)] == [True, True]
    with source.connect(source_database, owner.name, owner.password) as here:
        here.execute("SELECT nextval('plain'), nextval('round'), nextval('unused') FROM generate_series(1, 60)")
        here.execute("SELECT setval('fives', 20)")
    host.cut_over(spec.key)
    with source.connect(source_database) as here, target.connect(source_database) as there:
        assert differences(here, there) == {}
        assert sequences(there)["public.fives"] == (20, True) and sequences(there)["public.unused"] == (66, True)


def test_exact_offline(host, source, target, owner, source_database, spec_factory) -> None:
    """Nobody writes to the source, so there is nothing to be ahead of."""
    make(source, source_database, owner)
    spec = spec_factory("exact", [source_database], mode="offline")
    host.manager.start(spec)
    host.until(spec.key, lambda status: status["state"] == "Succeeded", "the end")
    with source.connect(source_database) as here, target.connect(source_database) as there:
        assert differences(here, there) == {}
