# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The clock of the runtime host is stepped by an hour, forwards and backwards, while a migration streams and while its source is fenced:
nothing is lost, no figure is wrong, no deadline comes early or late."""

from __future__ import annotations

import datetime
import json
import os
import signal
import time
import typing as t
from pathlib import Path

import clock as stepped
import pytest
import servers as lab
import workload as writers
from ansible_collections.pgops.migration.plugins.module_utils._engine.cutover.watchdog import FenceJournal
from ansible_collections.pgops.migration.plugins.module_utils._engine.migration.paths import MigrationPaths
from cutoverlab import held, lead, prepare_hold, shop_writers, state_of
from host import Host
from pair import make_target

pytestmark = pytest.mark.skipif(stepped.LIBRARY is None, reason="needs libfaketime (Debian's package faketime)")

HOUR = 3600
SANE = 900.0
"""Seconds that no span of these short runs comes near; a step would be four times as much."""

MAX_PAUSE = 10.0
"""Seconds; a watchdog is to have begun to wait long before."""

LOOK = """
import json, sys
from pathlib import Path
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.manager import Manager
manager = Manager(Path(sys.argv[1]), supervisor="process")
for line in sys.stdin:
    print(json.dumps(manager.status(sys.argv[2]), default=str), flush=True)
"""
"""A module on that host, as often as it is asked."""


@pytest.fixture(scope="module")
def target() -> t.Iterator[lab.Server]:
    """A target of this module's own: migrations leave roles and memberships on it."""
    server = make_target()
    yield server
    server.drop()


@pytest.fixture
def clock(tmp_path, host) -> t.Iterator[stepped.Clock]:
    """The clock of the runtime host."""
    one = stepped.Clock(tmp_path)
    one.set(HOUR)
    assert abs(one.difference() - HOUR) < 30
    one.set(0)
    yield one
    host.close()
    one.close()


@pytest.fixture
def application(source, owner, source_database, tmp_path) -> t.Iterator[writers.Workload]:
    """Writers of every kind on the source; the release hook leads them to the target."""
    workload = shop_writers(source, owner, source_database, tmp_path, 2, 8)
    prepare_hold(source, source_database)
    yield workload
    workload.stop()


@pytest.fixture
def watched(host, clock) -> t.Iterator[t.Callable[[t.Any], Watched]]:
    """``watched(spec)``: see :class:`Watched`."""
    made: list[Watched] = []

    def make(spec: t.Any) -> Watched:
        made.append(Watched(host, clock, spec))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Watched:
    """A migration whose service has ``clock``, as modules on its host see it: they have that clock, too."""

    def __init__(self, host: Host, clock: stepped.Clock, spec: t.Any) -> None:
        self.host, self.clock, self.spec, self.key = host, clock, spec, spec.key
        self.paths = MigrationPaths(host.home, spec.key)
        self.began = time.monotonic()
        self._module = clock.process(LOOK, str(host.home), spec.key)

    def close(self) -> None:
        self._module.communicate(timeout=60)

    def start(self) -> None:
        with self.clock.carried():
            self.host.manager.start(self.spec)

    def look(self) -> dict[str, t.Any]:
        """The status; its duration is the true one."""
        assert self._module.stdin and self._module.stdout
        self._module.stdin.write("look\n")
        self._module.stdin.flush()
        status = json.loads(self._module.stdout.readline())
        assert 0 <= status["duration_seconds"] <= time.monotonic() - self.began + 1
        return t.cast("dict[str, t.Any]", status)

    def step(self, seconds: int) -> None:
        """Step the clock, and see the service notice."""
        self.clock.set(seconds)
        self.until(lambda: abs(self._written() - time.time() - seconds) < SANE, f"a status of {seconds:+d} s")

    def _written(self) -> float:
        """When the service says that it wrote its status."""
        stamp = json.loads(self.paths.status.read_text(encoding="utf-8"))["written"]
        return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()

    def latency(self) -> float:
        (figures,) = self.look()["progress"].values()
        return float(figures["latency_seconds"])

    def samples(self) -> list[float]:
        """The moments of the curves' samples."""
        return [row[0] for row in json.loads(self.paths.history.read_text(encoding="utf-8"))["samples"]]

    def until(self, reached: t.Callable[[], t.Any], what: str, seconds: float = 60.0) -> None:
        limit = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < limit, f"waited for {what}\n{self.host.log(self.key)}"
            time.sleep(0.05)


def test_while_changes_are_streamed(host, clock, watched, target, application, source_database, spec_factory, tmp_path) -> None:
    """The latency is neither an hour nor nought, its curve goes on, nobody is warned; a service that was killed looks as old as it is."""
    # a heart that beats so seldom compares the clocks once, at the beginning
    changes = {"heartbeat": 120.0}
    cutover = {"max_latency": 60, "release": lead(tmp_path, target, source_database)}
    one = watched(spec_factory("stepped", [source_database], changes=changes, cutover=cutover))
    with application:
        one.start()
        host.until_waiting(one.key)
        for seconds in (HOUR, -HOUR):
            one.step(seconds)
            _true_latency(one)
            host.until_waiting(one.key)
        assert one.samples() == sorted(one.samples()) and one.samples()[-1] - one.samples()[0] < SANE
        host.kill(one.key)
        before = one.latency()
        clock.set(-2 * HOUR)
        one.until(lambda: one.latency() >= before + 1, "the latency of a dead service")
        clock.set(HOUR)
        assert before < one.latency() < before + SANE
        one.start()
        host.until_waiting(one.key)
        clock.set(0)
        host.cut_over(one.key)
        application.wait_acknowledged(10, port=target.port)
        application.stop()
    ended = one.look()
    assert ended["state"] == "Succeeded" and ended["cutover"]["pause_seconds"] < SANE
    assert one.samples() == sorted(one.samples())
    assert 0 < ended["validation"]["seconds"] < SANE
    # the writers empty a table now and then, on the target too, which hides its rows from the comparison
    warned = [event["text"] for event in ended["events"] if event["level"] != "info"]
    assert [text for text in warned if not text.startswith("Verification could not compare every table")] == []
    account = writers.check(target.dsn(source_database), application.folder)
    assert account.good, account


def _true_latency(one: Watched) -> None:
    """The latency that is shown is none of an hour, and it moves: nought for ever is as false."""
    seen, limit = set(), time.monotonic() + 3
    while time.monotonic() < limit:
        seen.add(one.latency())
        time.sleep(0.1)
    assert min(seen) >= 0 and max(seen) < SANE and len(seen) > 2, seen


def at_rest(pid: int) -> bool:
    """Has the process begun to wait: it sleeps, and takes no time of the CPU?"""
    looks = []
    for dummy in range(2):
        words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        looks.append((words[0], words[11], words[12]))
        time.sleep(0.2)
    return looks[0] == looks[1] and looks[0][0] == "S" and int(looks[0][1]) > 5


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forwards", "backwards"])
def test_while_the_source_is_fenced(
    step, host, clock, watched, source, target, application, source_database, spec_factory, tmp_path
) -> None:
    """The watchdog opens the source when the pause is over, no earlier and no later; a cutover that is in time succeeds."""
    options = {"max_latency": 60, "max_pause": MAX_PAUSE, "release": lead(tmp_path, target, source_database)}
    one = watched(spec_factory("fenced", [source_database], cutover=options))
    before = state_of(source, source_database)
    journal = FenceJournal(one.paths.fence)
    with application:
        one.start()
        host.until_waiting(one.key)
        with held(host, one.key, target, source_database, "drain") as go_on:
            service = (host.manager.status(one.key) or {})["service"]["pid"]
            os.kill(service, signal.SIGSTOP)  # it cannot give the cutover back: the watchdog must
            try:
                one.until(lambda: [at_rest(pid) for pid in host.watchdogs(one.key)] == [True], "a watchdog that waits")
                clock.set(step)
                deadline = json.loads(one.paths.fence.read_text(encoding="utf-8"))["deadline"]
                one.until(lambda: journal.state() != "fenced", "the watchdog", MAX_PAUSE + 10)
                assert -0.1 <= time.monotonic() - deadline < 4 and journal.state() == "lifted"
                assert state_of(source, source_database) == before
            finally:
                os.kill(service, signal.SIGCONT)
            go_on()
            given = host.until(one.key, lambda s: (s["cutover"] or {}).get("given_back"), "given back")
            assert given["cutover"]["given_back"]["code"] in ("PGM4040", "PGM5106")  # whichever of its limits it finds first
        host.until_waiting(one.key)
        one.step(step)
        host.manager.request_cutover(one.key, {"max_pause": SANE})
        one.until(lambda: journal.state() != "lifted", "the second fence")
        clock.set(0)
        host.until(one.key, lambda s: s["state"] == "Succeeded", "Succeeded")
        application.wait_acknowledged(10, port=target.port)
        application.stop()
    seen = one.look()["cutover"]
    assert 0 < seen["pause_seconds"] < SANE and all(0 <= phase["seconds"] < SANE for phase in seen["phases"])
    account = writers.check(target.dsn(source_database), application.folder)
    assert account.good, account
