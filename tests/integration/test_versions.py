# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Servers of other major versions (``scripts/majors`` fetches them): the stream of the regression corpus between any two of them, and whole
migrations where there is a ``pg_dump`` for the source. ``scripts/make-docs --versions`` makes docs/versions.md of the results."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.plugin import PluginChoice
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.verify.compare import verify_database
from changelab import StreamLab
from corpora import corpus, ddl_of, play
from faults import look
from host import Host
from pair import OWNER, PASSWORDS, describe, make_source, make_target

DATABASE = "corpus"


def pairs() -> list[t.Any]:
    """Each version that is installed as a source, to each of at least the same major."""
    return [_pair(source, target) for source in lab.installations() for target in lab.installations() if target >= source]


def whole_pairs() -> list[t.Any]:
    """Those for whole migrations, which take much longer: each version to itself and to the newest, so that each is a source and a target;
    only those that a ``pg_dump`` of this machine can read."""
    known = list(lab.installations())
    found = sorted({(major, other) for major in known for other in (major, known[-1])})
    return [_pair(source, target) for source, target in found if lab.program("pg_dump", target)]


def pairs_before_11() -> list[t.Any]:
    """One source whose changes do not tell of TRUNCATE, to the usual target."""
    known = lab.installations()
    usual = next((major for major, folder in known.items() if folder == lab.bindirs()[0]), 0)
    return [_pair(major, usual) for major in known if major < 11]


def _pair(source: int, target: int) -> t.Any:
    return pytest.param(source, target, id=f"{source}-{target}")


class Ends(t.NamedTuple):
    """Two servers, and a specification for the database of the corpus."""

    source: lab.Server
    target: lab.Server
    spec: MigrationSpec

    def prepare(self, server: lab.Server, owner: str) -> None:
        """What there is before, as the role that owns it."""
        server.create_database(DATABASE, owner)
        with server.connect(DATABASE, owner, PASSWORDS[server.port]) as conn:
            conn.execute(t.cast(t.Any, ddl_of(corpus(self.source.major))))

    def play(self, choice: PluginChoice | None = None) -> None:
        """The histories."""
        with self.source.connect(DATABASE, OWNER, PASSWORDS[self.source.port]) as conn:
            play(conn, corpus(self.source.major), choice)

    def different(self) -> list[str]:
        """Tables whose rows differ, as superusers see them; texts that versions write differently are made alike."""
        here, there = ({"user": server.superuser, "password": server.superuser_password} for server in (self.source, self.target))
        spec = MigrationSpec.from_dict(describe(self.source, self.target, "corpus", [DATABASE], source=here, target=there))
        return [table.label for table in verify_database(spec, DATABASE, schema=False).tables if not table.equal]


@pytest.fixture
def ends(source_major: int, target_major: int) -> t.Iterator[Ends]:
    known = lab.installations()
    with contextlib.ExitStack() as stack:
        source, target = make_source(bindir=known[source_major]), make_target(bindir=known[target_major])
        for server in (source, target):
            stack.callback(server.drop)
        bindir = (lab.program("pg_dump", max(source_major, target_major)) or source.bindir / "pg_dump").parent
        yield Ends(source, target, MigrationSpec.from_dict(describe(source, target, "corpus", [DATABASE], copy={"bindir": str(bindir)})))


@pytest.mark.parametrize("source_major, target_major", pairs())
def test_stream(ends: Ends, tmp_path: Path) -> None:
    """The whole corpus, with the plugin that is found."""
    ends.prepare(ends.source, OWNER)
    ends.prepare(ends.target, "admin")
    stream = StreamLab(ends.spec, tmp_path / "spool", "auto")
    stream.start()
    try:
        ends.play(stream.choice)
        stream.drain_by_position()
        assert stream.errors == [] and ends.different() == []
    finally:
        stream.close()


@pytest.mark.parametrize("source_major, target_major", whole_pairs())
def test_migration(ends: Ends, host: Host) -> None:
    """Validated, copied, followed, cut over, equal."""
    ends.prepare(ends.source, OWNER)
    host.manager.start(ends.spec)
    host.until_waiting(ends.spec.key)
    ends.play()
    host.cut_over(ends.spec.key)
    assert ends.different() == []


@pytest.mark.parametrize("source_major, target_major", pairs_before_11())
@pytest.mark.parametrize("after", ["TRUNCATE t", "VACUUM FULL t"])
def test_what_a_source_before_11_does_not_stream(ends: Ends, host: Host, after: str) -> None:
    """TRUNCATE is not decoded there: the validation warns, and a table with a new file ends the stream instead of keeping its rows."""
    ends.source.create_database(DATABASE, OWNER)
    with ends.source.connect(DATABASE, OWNER, PASSWORDS[ends.source.port]) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)")
    assert [f.severity for f in look(ends.spec, "PGM2115")] == ["Warning"]
    host.manager.start(ends.spec)
    host.until_waiting(ends.spec.key)
    ends.source.execute(after, DATABASE)
    status = host.until(ends.spec.key, lambda status: status["progress"][DATABASE]["error"], "the end of the stream")
    assert status["progress"][DATABASE]["error"]["code"] == "PGM4050" and "TRUNCATE" in status["summary"]
