# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The databases that the snapshot benchmark clones, as SQL. Sizes grow with the scale; rows depend on their number only."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "tests" / "data"

WHOLE = ("one", "mixed", "many", "partitions", "shop")
"""Cloned whole: schema, data, indexes, constraints, ANALYZE."""

ROWS = ("narrow", "typed")
"""One table without an index of which only the rows are copied."""

TYPED = """(id bigint, at timestamptz NOT NULL, reading float8, other float8, changed timestamp, word text, key uuid, extra jsonb)"""
VALUES = """i, '2024-01-01 UTC'::timestamptz + i * interval '1.7 second', sqrt(i), ln(i), '2020-01-01'::timestamp + i * interval '7 second',
    md5(i::text), md5(i::text)::uuid, CASE WHEN i % 2 = 0 THEN jsonb_build_object('i', i, 'w', md5(i::text)) END"""


def _one(scale: float) -> str:
    """One table, about 1 GB and its indexes another half at scale 1 (the goal speaks of 5 GB: scale 5)."""
    rows = round(6_000_000 * scale)
    return (
        f"CREATE TABLE one {TYPED}; INSERT INTO one SELECT {VALUES} FROM generate_series(1, {rows}) i;"
        " ALTER TABLE one ADD PRIMARY KEY (id); CREATE INDEX ON one (at)"
    )


def _mixed(scale: float) -> str:
    """30 tables from 1 million rows down to some thousands, 60 indexes: 30 primary keys, 18 B-trees, 6 GIN, 6 GiST."""
    parts = []
    for n in range(30):
        rows = max(10, round(1_000_000 * scale * 0.82**n))
        parts.append(
            f"CREATE TABLE mixed_{n} (id bigint PRIMARY KEY, at timestamptz NOT NULL, word text, tags int[], place point, extra jsonb);"
            f" ALTER TABLE mixed_{n} DROP CONSTRAINT mixed_{n}_pkey; INSERT INTO mixed_{n} SELECT i, '2024-01-01 UTC'::timestamptz"
            " + i * interval '1 second', md5(i::text), ARRAY[i % 97, i % 1013], point(sqrt(i), i % 5000),"
            f" jsonb_build_object('i', i % 500, 'n', {n}) FROM generate_series(1, {rows}) i; ALTER TABLE mixed_{n} ADD PRIMARY KEY (id)"
        )
        kind = ("gin (tags)", "gist (place)", "(word)", "(at)", "(word, at)")[n % 5]
        parts.append(f"CREATE INDEX ON mixed_{n} " + (f"USING {kind}" if kind.startswith("gi") else kind))
    return "; ".join(parts)


def _many(scale: float) -> str:
    """5,000 tables of 20 rows at scale 1, each with a primary key."""
    return (
        "DO $$ BEGIN FOR n IN 1.." + str(max(10, round(5000 * scale))) + " LOOP"
        " EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, word text, at timestamptz)', n);"
        " EXECUTE format('INSERT INTO many_%s SELECT i, md5(i::text), now() FROM generate_series(1, 20) i', n);"
        " IF n % 250 = 0 THEN COMMIT; END IF; END LOOP; END $$"
    )


def _partitions(scale: float) -> str:
    """One table in 200 partitions, 3 million rows at scale 1, a primary key and an index."""
    rows = round(3_000_000 * scale)
    return (
        "CREATE TABLE parted (id bigint, at timestamptz NOT NULL, word text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        " DO $$ BEGIN FOR n IN 0..199 LOOP EXECUTE format('CREATE TABLE parted_%s PARTITION OF parted FOR VALUES FROM (%L) TO (%L)', n,"
        " '2024-01-01 UTC'::timestamptz + n * interval '1 day', '2024-01-02 UTC'::timestamptz + n * interval '1 day'); END LOOP; END $$;"
        f" INSERT INTO parted SELECT i, '2024-01-01 UTC'::timestamptz + (i % 200) * interval '1 day', md5(i::text)"
        f" FROM generate_series(1, {rows}) i; CREATE INDEX ON parted (word)"
    )


def _shop(scale: float) -> str:
    """The demo's, with most of what PostgreSQL can hold."""
    return f"SELECT set_config('shop.scale', '{scale}', false); " + (DATA / "shop.sql").read_text()


def _narrow(scale: float) -> str:
    """Short rows: two numbers and a word; about 0.5 GB at scale 1."""
    rows = round(10_000_000 * scale)
    table = "CREATE TABLE row (id bigint, k int, word text); "
    return f"{table}INSERT INTO row SELECT i, i % 1000, 'word ' || i FROM generate_series(1, {rows}) i"


def _typed(scale: float) -> str:
    """Timestamps, floats, uuid and jsonb; about 0.7 GB at scale 1."""
    rows = round(4_000_000 * scale)
    return f"CREATE TABLE row {TYPED}; INSERT INTO row SELECT {VALUES} FROM generate_series(1, {rows}) i"


MAKERS = {"one": _one, "mixed": _mixed, "many": _many, "partitions": _partitions, "shop": _shop, "narrow": _narrow, "typed": _typed}


def script(case: str, scale: float) -> str:
    """The SQL that fills an empty database for ``case``."""
    return MAKERS[case](scale).replace(" row ", ' "row" ')
