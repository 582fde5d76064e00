# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Migrations as the manager tells of them, for tests of what is shown and for the pictures in docs/: one that follows, one that is over."""

from __future__ import annotations

import datetime
import math
import random
import typing as t

from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.history import Sample

NOW = 1795372100.0
"""2026-11-22 18:28:20 UTC."""
STARTED = NOW - 4520
GB, MB = 10**9, 10**6

TABLES = [
    ("public.order_item", 148 * GB, 1_912_400_000, "complete"),
    ("public.event", 96 * GB, 801_250_000, "complete"),
    ("public.order", 61 * GB, 240_118_000, "complete"),
    ("public.payment", 33 * GB, 221_400_300, "complete"),
    ("audit.log", 21 * GB, 310_004_120, "complete"),
    ("public.customer", 9 * GB, 38_204_000, "complete"),
    ("public.address", 6 * GB, 41_020_300, "complete"),
    ("public.product_image", 4_200 * MB, 604_000, "complete"),
    ("public.product", 1_900 * MB, 604_120, "complete"),
    ("public.price_history", 1_200 * MB, 21_400_000, "complete"),
    ("public.stock", 640 * MB, 1_208_240, "complete"),
    ("public.cart", 410 * MB, 2_004_000, "complete"),
    ("public.voucher", 96 * MB, 804_000, "complete"),
    ("public.shipment", 88 * MB, 402_000, "complete"),
    ("public.supplier", 12 * MB, 9_200, "complete"),
    ("public.country", 65536, 249, "complete"),
    ("public.currency", 32768, 168, "complete"),
    ("public.setting", 16384, 41, "complete"),
    ("public.feature_flag", 8192, 12, "complete"),
]


def iso(moment: float) -> str:
    """The moment as the record has it."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def endpoint(side: str, kind: str, host: str, user: str) -> dict[str, t.Any]:
    """A server as a status shows it."""
    return {"side": side, "type": kind, "host": host, "port": 5432, "user": user, "dbname": "postgres", "sslmode": "verify-full"}


def finding(code: str, check: str, severity: str = "Succeeded", message: str = "", **more: t.Any) -> dict[str, t.Any]:
    """One finding of a validation."""
    return {"code": code, "azure_code": "", "check": check, "severity": severity, "message": message, "database": "", "fix": "", **more}


def validation() -> dict[str, t.Any]:
    """A report with two warnings."""
    checks = [
        finding("PGM2001", "connectivity source", message="0.04 s, PostgreSQL 13.16, TLS 1.3"),
        finding("PGM2002", "connectivity target", message="0.05 s, PostgreSQL 17.11, TLS 1.3"),
        finding("PGM2101", "wal_level", message="logical"),
        finding("PGM2102", "replication slots", message="max_replication_slots = 20, 3 in use by others, 2 needed"),
        finding("PGM2020", "client tools", message="17.11 in /usr/lib/postgresql/17/bin"),
        finding(
            "PGM2404", "extension versions", "Warning", "another major version on the target: pg_partman 4.7.3 to 5.1.0", database="shop",
            fix="Read the extension's notes on upgrading; test before the cutover.",
        ),
        finding(
            "PGM2301", "replica identity", "Warning", "1 table without replica identity: audit.log; only inserts can be streamed",
            database="billing", fix='ALTER TABLE "audit"."log" REPLICA IDENTITY FULL;',
        ),
    ]  # fmt: skip
    return {"status": "Warning", "summary": "Warning (2 of 7)", "seconds": 2.41, "findings": checks, "table": []}


def progress() -> dict[str, dict[str, t.Any]]:
    """Two databases that follow the stream."""
    generator = random.Random(3)
    copied = {label: {"state": state, "bytes": size, "done": size, "rows": rows} for label, size, rows, state in TABLES}
    counts = {
        label: {"inserts": generator.randrange(400_000), "updates": generator.randrange(90_000), "deletes": generator.randrange(5_000)}
        for label, dummy, dummy, dummy in TABLES[:14]
    }
    total = sum(size for dummy, size, dummy, dummy in TABLES)
    shop = {
        "phase": "streaming", "state": "InProgress", "message": "", "tables_queued": 0, "tables_loading": 0, "tables_errored": 0,
        "tables_complete": len(TABLES), "bytes_total": total, "bytes_done": total, "bytes_moved": total, "chunks_total": 131,
        "chunks_done": 131, "rows_done": sum(rows for dummy, dummy, rows, dummy in TABLES), "indexes_total": 88, "indexes_done": 88,
        "inserts": 2_410_233, "updates": 801_442, "deletes": 20_118, "truncates": 0, "incoming": 3_233_910, "applied": 3_231_793,
        "applied_lsn": 1, "latency_seconds": 0.8, "lag_bytes": 1_204_224, "retained_wal_bytes": 41 * MB, "spool_bytes": 1_300_000,
        "changes_per_second": 2130.0, "fallbacks": 0, "eta_catch_up_seconds": 0.0, "verdict": "caught up",
        "copied": copied, "tables": counts,
    }  # fmt: skip
    billing = {
        **shop, "copied": {"billing.invoice": {"state": "complete", "bytes": 9 * GB, "done": 9 * GB, "rows": 30_400_000}}, "tables": {},
        "tables_complete": 1, "bytes_total": 9 * GB, "bytes_done": 9 * GB, "bytes_moved": 9 * GB, "rows_done": 30_400_000,
        "indexes_total": 6, "indexes_done": 6, "inserts": 44_120, "updates": 1_204, "deletes": 0, "applied": 45_324,
        "latency_seconds": 0.31, "retained_wal_bytes": 12 * MB, "changes_per_second": 41.0,
    }  # fmt: skip
    return {"shop": shop, "billing": billing}


def following() -> dict[str, t.Any]:
    """An online migration that waits for its cutover."""
    name, key = "shop-2026", "shop-2026-1f0c7a"
    folder = f"/var/lib/pg_migration/migrations/{key}"
    events = [
        (0, "info", "InProgress / PerformingPreRequisiteSteps"),
        (2, "info", "InProgress / ValidationInProgress"),
        (5, "info", "Globals: 61 statements applied, 3 left out"),
        (5, "info", "InProgress / MigratingData"),
        (1810, "warning", "audit.log has no replica identity: only inserts are streamed"),
        (3320, "info", "WaitingForUserAction / WaitingForCutoverTrigger"),
    ]
    plugin = {"plugin": "pgoutput", "reason": "wal2json would lose values: public.payment.amount is numeric"}
    return {
        "key": key, "name": name, "state": "WaitingForUserAction", "substate": "WaitingForCutoverTrigger", "mode": "online",
        "option": "validate_and_migrate", "source": endpoint("source", "on_premises", "db1.shop.internal", "migrator"),
        "target": endpoint("target", "azure_flexible", "shop.postgres.database.azure.com", "shopadmin"),
        "databases": ["shop", "billing"], "created": iso(STARTED), "started": iso(STARTED), "ended": None, "duration_seconds": 4520.0,
        "error": None, "validation": validation(), "progress": progress(), "plugin": {"shop": plugin, "billing": plugin}, "cutover": None,
        "verification": None, "canceled": None, "globals": None, "after": None, "monitor": None,
        "events": [{"time": iso(STARTED + after), "level": level, "text": text} for after, level, text in events],
        "engine": "3f9a1c07b2de", "service": {"running": True, "pid": 4120, "supervisor": "systemd"},
        "files": {"log": f"{folder}/service.log", "report": f"{folder}/certificate.json", "page": f"{folder}/report.html",
                  "validation": f"{folder}/validation.html"},
        "summary": "WaitingForCutoverTrigger  latency 0.8 s  3,277,117 changes applied  2,171/s",
    }  # fmt: skip


def succeeded() -> dict[str, t.Any]:
    """The same after its cutover."""
    status = following()
    results = {}
    for database, figures in status["progress"].items():
        tables = [
            {"label": label, "rows_source": entry["rows"], "rows_target": entry["rows"], "equal": True, "compared": True,
             "digest": f"{sum(label.encode()) * 7919:032x}", "differences": [], "note": ""}
            for label, entry in figures["copied"].items()
        ]  # fmt: skip
        rows = sum(table["rows_source"] for table in tables)
        sequences = [{"label": f"public.s{n}", "equal": True} for n in range(21)]
        results[database] = {
            "equal": True, "complete": True, "schema_equal": True, "rows": rows, "tables": tables, "sequences": sequences, "schema": [],
            "seconds": 481.2, "summary": "",
        }  # fmt: skip
        figures.update(phase="finished", state="Succeeded", ended=iso(NOW))
    phases = [
        ("fence", 0.11, "CONNECT revoked, 48 sessions ended, none left"),
        ("drain", 0.31, "marker 4/7A0C1F28 applied"),
        ("complete", 0.58, "211 sequences, 0 large objects, 4 materialized views"),
        ("release", 0.02, "hook /usr/local/bin/switch-pgbouncer"),
    ]
    target = "shop.postgres.database.azure.com:5432"
    return {
        **status, "state": "Succeeded", "substate": "Completed", "ended": iso(NOW), "summary": "Succeeded",
        "service": {"running": False, "pid": None, "supervisor": "systemd"},
        "cutover": {
            "phases": [{"name": name, "seconds": seconds, "text": text} for name, seconds, text in phases], "pause_seconds": 1.02,
            "lsn": {"shop": "4/7A0C1F28", "billing": "4/7A0C1F90"}, "fenced_at": iso(NOW - 490), "released_at": iso(NOW - 489),
            "sessions_ended": 48,
        },
        "verification": {"equal": True, "complete": True, "time": iso(NOW), "databases": results},
        "after": {
            "time": iso(NOW),
            "to_do": [
                {"topic": "extensions", "level": "warning", "database": "shop", "text": "pg_partman 5.0.1: the server offers 5.1.0",
                 "command": "ALTER EXTENSION pg_partman UPDATE;"},
                {"topic": "high availability", "level": "hint", "database": "", "text": "Turn it on now that the copy is verified.",
                 "command": "az postgres flexible-server update --resource-group GROUP --name SERVER --high-availability ZoneRedundant"},
            ],
            "connections": {
                name: {"uri": f"postgresql://{target}/{name}?sslmode=verify-full", "jdbc": "",
                       "dsn": f"host=shop.postgres.database.azure.com port=5432 dbname={name} sslmode=verify-full"}
                for name in ("shop", "billing")
            },
        },
    }  # fmt: skip


def others(first: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """The list of a host: ``first`` and earlier ones."""
    found = [first]
    earlier = [
        ("shop-rehearsal", "Succeeded", 171_000, 6210.0),
        ("shop-look", "ValidationFailed", 258_000, 9.0),
        ("crm", "Canceled", 600_000, 740.0),
    ]
    for name, state, ago, seconds in earlier:
        started, database = iso(NOW - ago), "crm" if name == "crm" else "shop"
        changed = {"name": name, "key": f"{name}-1f0c7a", "state": state, "started": started, "duration_seconds": seconds}
        found.append({**first, **changed, "databases": [database]})
    return found


def samples(*, ended: bool = False) -> list[Sample]:
    """The run of :func:`following`: copy with a stall, indexes, catching up, following."""
    generator = random.Random(7)
    found, moved, applied = [], 0.0, 0.0
    for second in range(0, 4020 if ended else 4520, 10):
        copying = 5 <= second < 2900
        stalled = 1500 <= second < 1560
        if copying and not stalled:
            moved += 10 * (134 * MB + generator.gauss(0, 9 * MB) + 18 * MB * math.sin(second / 170))
        catching_up = 3320 <= second < 3460
        if second >= 3320:
            applied += 10 * (14_800 if catching_up else 2130) * generator.uniform(0.9, 1.1)
        latency = max(0.4, (3460 - second) * 22.0) if catching_up else 0.8 + generator.random() * 0.5 if second >= 3320 else None
        retained = int((60 + 25 * math.sin(second / 90) + generator.random() * 20) * MB) if second >= 5 else None
        substate = "ValidationInProgress" if second < 5 else "MigratingData" if second < 3320 else "WaitingForCutoverTrigger"
        found.append(Sample(STARTED + second, substate, int(moved), int(applied), latency, retained))
    if ended:
        found.append(Sample(NOW - 490, "CompletingMigration", int(moved), int(applied) + 900, 0.5, 40 * MB))
    return found
