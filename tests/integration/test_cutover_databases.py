# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Databases of one migration that are switched over one after the other: each with writers of its own, who lose nothing."""

from __future__ import annotations

import contextlib
import json
import time
import typing as t
from pathlib import Path

import psycopg
import pytest
import servers as lab
import workload as writers
from ansible.module_utils.testing import patch_module_args
from ansible_collections.pgops.migration.plugins.module_utils._ansible.module import MigrationModule
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import CutoverAborted
from ansible_collections.pgops.migration.plugins.modules import pg_cutover
from cutoverlab import lead
from host import Host
from pair import describe

PAUSE = 8.0


class Application:
    """The writers of one database, and the hook that leads them to the target."""

    def __init__(self, source: lab.Server, target: lab.Server, database: str, login: t.Any, folder: Path) -> None:
        folder.mkdir()
        self.source, self.target, self.database = source, target, database
        writers.point_at(folder / "dsn", source.dsn(database, login.name, login.password))
        self.release = lead(folder, target, database)
        self.load = writers.Workload(folder / "dsn", 2, folder=folder / "notes", rate=20)
        self.load.prepare()

    def until_on(self, server: lab.Server) -> None:
        """Wait until ``server`` acknowledges its commits."""
        self.load.wait_acknowledged(self.load.acknowledged(server.port) + 10, port=server.port)

    def account(self) -> writers.Account:
        """What became of its commits."""
        self.load.stop()
        return writers.check(self.target.dsn(self.database), self.load.folder)


@pytest.fixture
def applications(source, target, owner, database_factory, tmp_path) -> t.Iterator[list[Application]]:
    """Two databases with their writers at work."""
    made = [Application(source, target, database_factory(), owner, tmp_path / f"app{n}") for n in range(2)]
    with contextlib.ExitStack() as stack:
        for one in made:
            stack.enter_context(one.load)
        yield made


def switched(host: Host, key: str, name: str) -> dict[str, t.Any]:
    """Wait until the migration of ``name`` is over."""
    return host.until(key, lambda seen: seen["progress"][name].get("phase") == "finished", f"the end of {name}")


def test_one_after_the_other(host: Host, source, target, applications, owner, spec_factory, monkeypatch, capsys) -> None:
    """The first is served by the target while the second is streamed on, over a killed service, until its own cutover ends the whole."""
    first, second = applications
    names = [first.database, second.database]
    options = describe(source, target, "apart", names, cutover={"max_latency": 60, "max_pause": PAUSE, "fence": "revoke_connect"})
    key = spec_factory("apart", names).key
    monkeypatch.setattr(MigrationModule, "manager", lambda self: host.manager)

    def play(*databases: str, check: bool = False, release: t.Sequence[str] = ()) -> dict[str, t.Any]:
        """The module, as the playbook calls it."""
        cutover = {**options["cutover"], "databases": list(databases), "release": list(release)}
        words = {**options, "cutover": cutover, "wait_timeout": 60, "_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args(words), pytest.raises(SystemExit):
            pg_cutover.main()
        return dict(json.loads(capsys.readouterr().out))

    host.manager.start(spec_factory("apart", names, cutover=options["cutover"]))
    host.until_waiting(key)
    refused = play("nobody")
    assert refused["error_code"] == "PGM5008" and "nobody" in refused["msg"]

    foreseen = play(first.database, check=True)
    assert foreseen["changed"] and not foreseen["reached"] and foreseen["diff"]["after"]["on_target"] == [first.database]
    done = play(first.database, release=first.release)
    assert done.get("changed") and done["reached"] and done["state"] == "WaitingForUserAction", done.get("msg", done)
    assert list(done["lsn"]) == [first.database] and done["verification"]["equal"]
    first.until_on(target)
    second.until_on(source)
    assert not play(first.database)["changed"]
    with pytest.raises(psycopg.OperationalError, match="permission denied"):  # law 10: the source of the first stays closed
        source.connect(first.database, owner.name, owner.password)

    host.kill(key)
    host.manager.start(spec_factory("apart", names, cutover=options["cutover"]))
    host.until_waiting(key)
    second.until_on(source)
    assert list(host.manager.status(key)["switched"]) == [first.database]
    last = play(release=second.release)
    assert last["changed"] and last["state"] == "Succeeded" and list(last["lsn"]) == [second.database]
    second.until_on(target)
    assert sorted(last["verification"]["databases"]) == sorted(names) and last["verification"]["equal"]
    certificate = json.loads(Path(last["status"]["files"]["report"]).read_text(encoding="utf-8"))
    assert sorted(certificate["switched"]) == sorted(names)
    for one in applications:
        assert one.account().good
    assert not play()["changed"]


def test_killed_behind_the_point_of_no_return(host: Host, source, target, applications, spec_factory, tmp_path) -> None:
    """The release is finished by the next life of the service, for the database that it concerns; the other stays where it is."""
    first, second = applications
    hook, began = tmp_path / "release", tmp_path / "released"
    hook.write_text(f"#!/bin/sh\nif [ ! -e {began} ]; then touch {began}; sleep 30; fi\nexec {' '.join(first.release)}\n")
    hook.chmod(0o700)
    spec = spec_factory("cut-off", [first.database, second.database], cutover={"max_latency": 60, "release": [str(hook)]})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    host.manager.request_cutover(spec.key, {"databases": [first.database]})
    limit = time.monotonic() + 30
    while not began.exists():
        assert time.monotonic() < limit, host.log(spec.key)
        time.sleep(0.01)
    host.kill(spec.key)
    second.until_on(source)
    host.manager.start(spec)
    switched(host, spec.key, first.database)
    first.until_on(target)
    second.until_on(source)
    host.until_waiting(spec.key)
    host.cut_over(spec.key, release=second.release)
    second.until_on(target)
    for one in applications:
        assert one.account().good


def test_while_another_is_copied(host: Host, source, target, applications, spec_factory) -> None:
    """What streams can be switched over; what does not is refused, and all at once are too."""
    first, second = applications
    source.execute("CREATE TABLE public.bulk AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 3000) i", second.database)
    source.execute("ALTER TABLE public.bulk ADD PRIMARY KEY (i); ALTER TABLE public.bulk OWNER TO app", second.database)
    spec = spec_factory("early", [first.database, second.database], copy={"throttle": 200_000}, cutover={"max_latency": 60})
    host.manager.start(spec)
    host.until(spec.key, lambda seen: seen["progress"].get(first.database, {}).get("latency_seconds") is not None, "the first stream")
    for names in ([second.database], []):
        with pytest.raises(CutoverAborted, match="not streaming yet") as refused:
            host.manager.request_cutover(spec.key, {"databases": names})
        assert refused.value.code == "PGM5001"
    host.manager.request_cutover(spec.key, {"databases": [first.database], "release": first.release})
    seen = switched(host, spec.key, first.database)
    assert seen["progress"][second.database]["phase"] == "copying"
    first.until_on(target)
    host.until_waiting(spec.key)
    host.cut_over(spec.key, release=second.release)
    second.until_on(target)
    for one in applications:
        assert one.account().good
