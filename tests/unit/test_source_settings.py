# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The CDC parameters as R16 to R21 want them, by table and by property."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.settings import (
    Setting,
    Usage,
    include_text,
    overridden_by,
    parse_quantity,
    plan_cdc,
    wanted_senders,
    wanted_slots,
    wanted_timeout,
)
from hypothesis import given
from hypothesis import strategies as st


def present(level: str = "replica", slots: int = 0, senders: int = 0, timeout: str = "60000", **more: t.Any) -> dict[str, Setting]:
    return {
        "wal_level": Setting("wal_level", level, "", "postmaster", **more),
        "max_replication_slots": Setting("max_replication_slots", str(slots), "", "postmaster"),
        "max_wal_senders": Setting("max_wal_senders", str(senders), "", "postmaster"),
        "wal_sender_timeout": Setting("wal_sender_timeout", timeout, "ms", "user"),
    }


@pytest.mark.parametrize(
    ("databases", "used", "in_use", "now_slots", "now_senders", "slots", "senders"),
    [
        # nothing else on the server: more than 1, and one for each database (R17); as many senders (R19)
        (1, 0, 0, 0, 0, 2, 2),
        (2, 0, 0, 0, 0, 2, 2),
        (8, 0, 0, 0, 0, 8, 8),
        (20, 0, 0, 0, 0, 20, 20),
        # slots and senders in use come on top
        (1, 1, 1, 2, 2, 2, 3),
        (2, 3, 1, 4, 4, 5, 6),
        (8, 2, 2, 10, 10, 10, 12),
        (20, 4, 3, 10, 10, 24, 27),
        # what is higher already stays (R18)
        (1, 0, 0, 50, 60, 50, 60),
        (8, 0, 2, 10, 12, 10, 12),
        (20, 0, 0, 100, 10, 100, 100),
    ],
)
def test_slots_and_senders(databases: int, used: int, in_use: int, now_slots: int, now_senders: int, slots: int, senders: int) -> None:
    changes = {c.name: c for c in plan_cdc(present("logical", now_slots, now_senders), Usage(used, in_use), databases)}
    assert int(changes["max_replication_slots"].desired if "max_replication_slots" in changes else now_slots) == slots
    assert int(changes["max_wal_senders"].desired if "max_wal_senders" in changes else now_senders) == senders
    assert all(c.restart for c in changes.values())


@given(databases=st.integers(1, 64), used=st.integers(0, 64), senders=st.integers(0, 64), now=st.integers(0, 128), margin=st.integers(0, 8))
def test_never_lowered_and_always_enough(databases: int, used: int, senders: int, now: int, margin: int) -> None:
    slots = wanted_slots(now, used, databases, margin)
    assert slots >= now and slots > 1 and slots - used >= databases + margin
    many = wanted_senders(now, slots, senders)
    assert many >= now and many >= slots + senders


@given(
    databases=st.integers(1, 64),
    used=st.integers(0, 9),
    senders=st.integers(0, 9),
    level=st.sampled_from(["minimal", "replica", "logical"]),
)
def test_a_second_plan_is_empty(databases: int, used: int, senders: int, level: str) -> None:
    now = present(level)
    changes = plan_cdc(now, Usage(used, senders), databases, wal_sender_timeout="0")
    after = {**now, **{c.name: Setting(c.name, c.desired, c.unit, c.context) for c in changes}}
    assert plan_cdc(after, Usage(used, senders), databases, wal_sender_timeout="0") == []


def test_our_own_slots_are_no_reason_to_ask_for_more() -> None:
    assert plan_cdc(present("logical", 4, 4), Usage(2, 0, ours=2), 2) == []
    assert {c.desired for c in plan_cdc(present("logical", 4, 4), Usage(2, 0, ours=5), 2)} == {"7"}


@pytest.mark.parametrize("level", ["minimal", "archive", "hot_standby", "replica"])
def test_wal_level_is_raised_and_needs_a_restart(level: str) -> None:
    change = plan_cdc(present(level, 9, 9), Usage(), 1)[0]
    assert (change.name, change.current, change.desired, change.restart) == ("wal_level", level, "logical", True)


@pytest.mark.parametrize(
    ("current", "asked", "desired"),
    [
        ("60000", None, "60000"),
        ("60000", "0", "0"),
        ("0", "60s", "0"),
        ("0", "0", "0"),
        ("60000", "60s", "60000"),
        ("60000", "1min", "60000"),
        ("60000", "5min", "300000"),
        ("30000", "1.5min", "90000"),
        ("60000", "30s", "60000"),
        ("60000", "1h", "3600000"),
        ("1000", "2500", "2500"),
        ("60000", " '90s' ", "90000"),
    ],
)
def test_timeout(current: str, asked: str | None, desired: str) -> None:
    assert wanted_timeout(current, asked) == desired
    changes = [
        c for c in plan_cdc(present("logical", 9, 9, current), Usage(), 1, wal_sender_timeout=asked) if c.name == "wal_sender_timeout"
    ]
    assert [c.desired for c in changes] == ([] if desired == current else [desired])
    assert not any(c.restart for c in changes)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("60s", "ms", 60000),
        ("1min", "s", 60),
        ("64MB", "kB", 65536),
        ("64MB", "8kB", 8192),
        ("12", "", 12),
        ("1d", "min", 1440),
        ("-1", "MB", -1),
    ],
)
def test_units(text: str, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(("text", "unit"), [("60x", "ms"), ("64MB", "ms"), ("", "ms"), ("on", ""), ("10s", "kB"), ("10s", "")])
def test_what_is_no_quantity(text: str, unit: str) -> None:
    with pytest.raises(ValueError, match="quantity|unit"):
        parse_quantity(text, unit)


def test_a_value_that_waits_for_a_restart_is_written_already() -> None:
    change = plan_cdc(present("replica", 9, 9, pending_restart=True, file_value="logical"), Usage(), 1)[0]
    assert change.written and change.restart
    assert not plan_cdc(present("replica", 9, 9, pending_restart=True, file_value="minimal"), Usage(), 1)[0].written


def test_what_hides_an_include_file_is_named() -> None:
    assert overridden_by(Setting("wal_level", "replica", source_file="/data/postgresql.auto.conf")) == "postgresql.auto.conf"
    assert overridden_by(Setting("wal_level", "replica", source="command line")) == "command line"
    assert overridden_by(Setting("wal_level", "replica", source_file="/etc/postgresql/15/main/postgresql.conf")) == ""


def test_the_include_file_is_the_same_on_a_second_run() -> None:
    now = present("replica", 2, 2)
    changes = plan_cdc(now, Usage(1, 1), 8, wal_sender_timeout="5min")
    text = include_text(changes, now)
    assert "wal_level = 'logical'\nmax_replication_slots = '9'\nmax_wal_senders = '10'\nwal_sender_timeout = '300000ms'\n" in text
    file = "/etc/postgresql/conf.d/pg_migration_cdc.conf"
    after = {c.name: Setting(c.name, c.desired, c.unit, c.context, "configuration file", file) for c in changes}
    assert plan_cdc(after, Usage(1, 1), 8, wal_sender_timeout="5min") == []
    assert include_text([], after) == text
    assert include_text([], now) == ""
