# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What the drained backlogs are made of: TPC-B transactions, inserts, updates, deletes, and a mix of them by several sessions."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import typing as t
from pathlib import Path

import measure
import pair
import servers as lab

PER_TRANSACTION = 10
"""Rows that a transaction of the other cases than TPC-B changes."""

ITEM = """
CREATE TABLE bench_item (id bigint PRIMARY KEY, customer int NOT NULL, at timestamptz NOT NULL, amount numeric(12,2) NOT NULL,
    word text NOT NULL, body jsonb NOT NULL);
CREATE INDEX ON bench_item (customer);
CREATE INDEX ON bench_item (at);
CREATE INDEX ON bench_item (word);
CREATE INDEX ON bench_item USING gin (body jsonb_path_ops);
INSERT INTO bench_item SELECT {row} FROM generate_series(1::bigint, {loaded}) i;
"""
ROW = (
    "i, (i * 7919) % 10000, '2026-01-01 UTC'::timestamptz + i * interval '1 second', (i % 100000) / 100.0, md5(i::text),"
    " jsonb_build_object('n', i % 1000, 'tag', md5((i % 5000)::text))"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A backlog: ``loaded`` rows before it and ``changed`` rows in it at scale 1, and the statements of one transaction in terms of its
    first row ``k`` and the next one's ``k + {n}``, by ``sessions`` sessions."""

    name: str
    tables: tuple[str, ...]
    changed: int
    loaded: int = 0
    statements: str = ""
    sessions: int = 1
    changes: float = 1.0  # of one row

    def build(self, source: lab.Server, database: str, scale: float, log: Path, passfile: Path) -> None:
        """Tables and rows before the backlog."""
        if self.name == "tpcb":
            measure.run([source.bindir / "pgbench", *_at(source), "-i", "-q", "-s", "10", database], log, passfile)
            source.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL", database)
        else:
            source.execute(ITEM.format(row=ROW, loaded=round(self.loaded * scale)), database)
        owned = "; ".join(f"ALTER TABLE {table} OWNER TO {pair.OWNER}" for table in self.tables)
        source.execute(f"{owned}; CREATE TABLE bench_last (id int PRIMARY KEY); ALTER TABLE bench_last OWNER TO {pair.OWNER}", database)
        source.execute("VACUUM ANALYZE", database)

    def write(self, source: lab.Server, database: str, scale: float, log: Path, passfile: Path) -> int:
        """Write the backlog; the number of its changes."""
        if self.name == "tpcb":
            each = max(25, round(self.changed / 4 / 4 * scale))
            words = [source.bindir / "pgbench", *_at(source), "-n", "-c", "4", "-j", "2", "-t", str(each), database]
            measure.run(words, log, passfile)
            return each * 4 * 4
        rows = max(PER_TRANSACTION * self.sessions, round(self.changed * scale)) // self.sessions
        first = round(self.loaded * scale) if "INSERT" in self.statements and self.sessions == 1 else 0
        with concurrent.futures.ThreadPoolExecutor(self.sessions) as pool:
            parts = [pool.submit(self._session, source, database, first + n * rows, rows) for n in range(self.sessions)]
            for part in parts:
                part.result()
        return round(rows // PER_TRANSACTION * PER_TRANSACTION * self.sessions * self.changes)

    def _session(self, source: lab.Server, database: str, first: int, rows: int) -> None:
        body = self.statements.format(n=PER_TRANSACTION)
        with source.connect(database) as conn:
            conn.execute("SET synchronous_commit = off")
            loop = f"FOR t IN 0..{rows // PER_TRANSACTION - 1} LOOP k := {first} + 1 + t * {PER_TRANSACTION}; {body}; COMMIT; END LOOP"
            conn.execute(t.cast(t.Any, f"DO $$ DECLARE k bigint; BEGIN {loop}; END $$"))


def _at(server: lab.Server) -> list[str]:
    return ["-h", server.host, "-p", str(server.port), "-U", server.superuser]


TPCB = ("pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history")
INSERT = f"INSERT INTO bench_item SELECT {ROW} FROM generate_series(k, k + {{n}} - 1) i"
UPDATE = "UPDATE bench_item SET amount = amount + 1, word = md5(word) WHERE id BETWEEN k AND k + {n} - 1"
DELETE = "DELETE FROM bench_item WHERE id BETWEEN k AND k + {n} - 1"
FAR = INSERT.replace("(k, k + {n} - 1)", "(10000000 + k, 10000000 + k + {n} - 1)")

CASES = (
    Case("tpcb", TPCB, 200_000),
    Case("inserts", ("bench_item",), 200_000, 100_000, INSERT),
    Case("updates", ("bench_item",), 150_000, 200_000, UPDATE),
    Case("deletes", ("bench_item",), 200_000, 300_000, DELETE),
    Case("mix", ("bench_item",), 60_000, 200_000, f"{FAR}; {UPDATE}; {DELETE}; {INSERT}", sessions=4, changes=4.0),
)
