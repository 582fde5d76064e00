# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Limits of a migration's time: what ends, what is said and what stays, and that it goes on with a higher limit."""

from __future__ import annotations

import socket
import time

import pytest
from copylab import fill
from rows import differences

SLOTS = "SELECT slot_name, temporary FROM pg_replication_slots WHERE slot_name LIKE 'pgm%'"


@pytest.fixture
def shop(source, owner, source_database) -> str:
    """Two tables of some megabytes."""
    fill(source, source_database, owner)
    return str(source_database)


def write(source, owner, database: str) -> None:
    """A change that the target has not seen."""
    with source.connect(database, owner.name, owner.password) as conn:
        conn.execute("UPDATE big SET k = k + 1; DELETE FROM bigger WHERE id % 3 = 0")


def test_base_copy(host, source, target, owner, shop, spec_factory) -> None:
    """B19: a copy that takes longer is Failed and says so; nothing but the stream's own slot holds WAL; with a higher limit it goes on,
    under the same slot, and what is committed meanwhile is not lost."""
    spec = spec_factory("limit-copy", [shop], copy={"chunk_bytes": 64 << 10, "throttle": 100_000}, limits={"max_copy": 10})
    host.manager.start(spec)
    status = host.until_failed(spec.key)
    error = status["error"]
    assert (error["code"], status["substate"]) == ("PGM8012", "MigratingData")
    assert "limits.max_copy (10 s)" in error["message"] and shop in error["message"] and "max_copy" in error["hint"]
    assert status["progress"][shop]["state"] == "Failed"
    slots = source.execute(SLOTS)
    assert [temporary for dummy, temporary in slots] == [False]
    write(source, owner, shop)
    again = host.manager.start(spec)
    assert host.until_failed(again["key"])["error"]["code"] == "PGM8012"  # counted from the beginning, not from the last start
    more = spec_factory("limit-copy", [shop], limits={"max_copy": 600})
    host.manager.start(more)
    host.until_waiting(more.key)
    assert source.execute(SLOTS) == slots
    host.cut_over(more.key)
    with source.connect(shop) as here, target.connect(shop) as there:
        assert differences(here, there) == {}


def test_wait_for_the_cutover(host, source, target, owner, shop, spec_factory) -> None:
    """B19: a migration that nobody cuts over is Failed; killed or stopped in between, the time goes on; with a higher limit, so does it."""
    spec = spec_factory("limit-wait", [shop], limits={"max_copy": 600, "max_wait": 8})
    host.manager.start(spec)
    host.until_waiting(spec.key)
    host.kill(spec.key)
    host.manager.start(spec)
    status = host.until_failed(spec.key)
    error = status["error"]
    assert error["code"] == "PGM8013" and "limits.max_wait (8 s)" in error["message"] and "max_wait" in error["hint"]
    assert 8 <= status["duration_seconds"] < 60
    slots = source.execute(SLOTS)
    assert [temporary for dummy, temporary in slots] == [False]
    write(source, owner, shop)
    more = spec_factory("limit-wait", [shop])
    host.manager.start(more)
    host.until_waiting(more.key)
    assert source.execute(SLOTS) == slots
    host.cut_over(more.key)
    with source.connect(shop) as here, target.connect(shop) as there:
        assert differences(here, there) == {}


@pytest.mark.parametrize("option", ["migrate", "validate_and_migrate"])
def test_prerequisites_end_with_their_item(host, shop, spec_factory, option: str) -> None:
    """R78: how long they took is an event before the copy begins, and in the details."""
    spec = spec_factory(f"item-{option.replace('_', '-')}", [shop], option=option)
    host.manager.start(spec)
    status = host.until_waiting(spec.key)
    told = status["prerequisites"]
    assert 0 < told["seconds"] < 60 and told["limit_seconds"] == 180
    texts = [event["text"] for event in status["events"]]
    item = texts.index(f"Prerequisites done in {told['seconds']:.1f} s of at most 180 s")
    assert texts.index("InProgress / PerformingPreRequisiteSteps") < item < texts.index("InProgress / MigratingData")


@pytest.mark.parametrize("option", ["migrate", "validate_and_migrate"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_does_not_answer(host, source, shop, spec_factory, option: str, side: str) -> None:
    """R78: past its budget the step is Failed with the name of the server that was waited for, though its own time to connect is longer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = {"port": silent.getsockname()[1], "connect_timeout": 90}
        spec = spec_factory("mute", [shop], option=option, limits={"max_prerequisites": 1.5}, **{side: there})
        began = time.monotonic()
        host.manager.start(spec)
        status = host.until_failed(spec.key)
        assert time.monotonic() - began < 45
    error = status["error"]
    assert (error["code"], status["substate"]) == ("PGM8011", "PerformingPreRequisiteSteps")
    assert error["server"].startswith(f"{side} 127.0.0.1:{there['port']}") and error["server"] in error["message"]
    assert source.execute(SLOTS) == []
