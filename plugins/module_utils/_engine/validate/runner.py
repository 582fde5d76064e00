# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Runs all checks that apply to a migration and collects what they find. Nothing is written to either server.

Connections come first. What needs a side that cannot be reached is left out with one finding (PGM2000), and so is what needs a
database that cannot be connected to. A check that breaks off becomes a finding itself (PGM2999): the others still run.
"""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

from ..errors import ConnectionFailed, MigrationError, SpecificationError
from ..postgres.drivers import psycopg, require
from ..spec import MigrationSpec
from . import (
    cdc,
    chosen,
    collations,
    configuration,
    connectivity,
    extensions,
    hooks,
    objects,
    parameters,
    places,
    present,
    rights,
    roles,
    servers,
    targetserver,
    textsearch,
    wayback,
)
from .context import Context
from .databases import resolve_databases
from .registry import CHECKS, FAILED, OPERATOR, PLAYBOOK, SUCCEEDED, WARNING, Check, Finding, Issue, fail, names, responsible
from .report import Report

ROOMS = (
    *(connectivity, servers, targetserver, places, hooks, cdc, rights, present, chosen, objects, extensions, configuration),
    *(collations,),
    *(textsearch, roles, parameters, wayback),
)
"""Importing them fills the registry."""

LEFT_OUT, BROKEN_OFF, SELECTION = "PGM2000", "PGM2999", "PGM2200"
CONNECTIVITY = {"source": "PGM2001", "target": "PGM2002"}
ON_SOURCE = "PGM2201"
"""The check after which a database of the source is known to be reachable or not."""

OUTSIDE_REGISTRY = {
    LEFT_OUT: (
        "left out",
        "Failed",
        "repair the finding that is named, then validate again",
        PLAYBOOK,
        "Checks that could not run, and why.",
    ),
    SELECTION: ("selected databases", "Failed", "name existing databases, or [all]", PLAYBOOK, "There is something to migrate (R65)."),
    BROKEN_OFF: ("check broken off", "Warning", "see the message", OPERATOR, "A check that the server refused or cut short."),
}
"""Findings that are no check's own: name, severity, remedy, who may run it, purpose."""

Reporter = t.Callable[[dict[str, t.Any]], None]


def validate(
    spec: MigrationSpec,
    *,
    report: Reporter | None = None,
    home: Path | None = None,
    stop: t.Callable[[], bool] | None = None,
    only: t.Collection[str] = (),
) -> Report:
    """Look at both servers and say what stands in the migration's way. Never raises for what a check finds.

    :param report: called after each finding with ``{"validation": finding as data}``.
    :param home: the runtime host's folder for state and spool, whose disk is measured.
    :param only: codes of the checks to run beside the connections, for a wait until something is repaired; all if empty.
    :param stop: asked between checks; when it says yes the rest is left out (R104).
    :raises ServiceError: where psycopg is missing.
    """
    require("psycopg")
    context = Context(spec, home)
    run = _Run(context, report or (lambda dummy: None), stop or (lambda: False), only)
    try:
        run.everything()
    finally:
        context.close()
    return run.result


def wait_until(spec: MigrationSpec, codes: t.Collection[str], *, seconds: float, pause: float = 15.0) -> Report:
    """:func:`validate` with ``codes`` alone, again and again until none of them fails or ``seconds`` are over; the last report.

    For sources of a provider, whose parameters somebody sets elsewhere and whose restart takes its time (R24).
    """
    deadline = time.monotonic() + seconds
    while True:
        report = validate(spec, only=codes)
        if report.passed or time.monotonic() + pause > deadline:
            return report
        time.sleep(pause)


class _Run:
    """One validation under way."""

    def __init__(self, context: Context, report: Reporter, stop: t.Callable[[], bool], only: t.Collection[str]) -> None:
        self.context = context
        self.only = {*only, ON_SOURCE, *CONNECTIVITY.values()} if only else frozenset(CHECKS)
        self.report = report
        self.stop = stop
        self.unreachable: set[str] = set()
        self.left_out: dict[str, list[str]] = {}
        self.result = Report(context.spec)

    def everything(self) -> None:
        """Connections, instance, databases, in this order."""
        online = self.context.spec.online
        chosen = sorted((c for c in CHECKS.values() if c.code in self.only and (online or not c.online)), key=lambda c: (c.order, c.code))
        for side, code in CONNECTIVITY.items():
            if not self.run(CHECKS[code]):
                self.unreachable.add(side)
        if "source" not in self.unreachable:
            self.select()
        late = [c for c in chosen if c.scope == "instance" and c.order >= 90]
        for check in (c for c in chosen if c.scope == "instance" and c.code not in CONNECTIVITY.values() and c not in late):
            self.run(check)
        if "source" not in self.unreachable:
            for database in self.context.databases:
                self.one_database(database, [c for c in chosen if c.scope == "database"])
        else:
            self.left_out.setdefault("source", []).extend(c.name for c in chosen if c.scope == "database")
        for check in late:
            self.run(check)
        for side, skipped in self.left_out.items():
            why = f"the {side} cannot be reached: {len(skipped)} check(s) left out: {names(skipped, 8)}"
            self.add_other(LEFT_OUT, side, fail(why, f"Repair {CONNECTIVITY[side]}, then validate again.", object=side))
        self.result.finish(canceled=self.stop())

    def select(self) -> None:
        """Find out which databases are meant, and start measuring the WAL rate."""
        try:
            self.context.databases = resolve_databases(self.context.spec, self.context.session("source"))
            if servers.SPOOL_SPACE in self.only and self.context.spec.online:
                servers.begin_wal_rate(self.context)
        except SpecificationError as exc:
            self.add_other(SELECTION, "source", fail(exc.message, exc.hint, data=exc.details or None))
        except (psycopg.Error, ConnectionFailed) as exc:
            self.add_other(SELECTION, "source", fail(" ".join(str(exc).split())))
        self.result.databases = list(self.context.databases)

    def one_database(self, database: str, checks: t.Sequence[Check]) -> None:
        """The checks of one database; if it is not there, those of the target alone."""
        self.context.database = database
        begun = time.time()
        reachable = True
        skipped: list[str] = []
        for check in checks:
            if not reachable and "source" in check.needs:
                skipped.append(check.name)
            elif not self.run(check) and check.code == ON_SOURCE:
                reachable = False
        if skipped:
            text = f"{len(skipped)} check(s) of the source's objects left out: {names(skipped, 8)}"
            self.add_other(LEFT_OUT, "source", fail(text, f"Repair {ON_SOURCE}, then validate again.", object=database))
        self.context.drop_session("source", database)
        self.context.database = ""
        self.result.spans[database] = (begun, time.time())

    def run(self, check: Check) -> bool:
        """Run one check; False if it found a failure or could not run."""
        if self.stop():
            return True
        side = next((side for side in check.needs if side in self.unreachable), None)
        if side is not None:
            skipped = self.left_out.setdefault(side, [])
            if check.name not in skipped:
                skipped.append(check.name)
            return False
        begun = time.monotonic()
        try:
            issues = list(check.function(self.context))
        except (psycopg.Error, MigrationError, OSError) as exc:
            text = " ".join(str(exc).split())
            state = getattr(exc, "sqlstate", None) or ""
            severity = WARNING if state in ("42501", "57014") else FAILED
            shown = f" (SQLSTATE {state})" if state else ""
            hint = getattr(exc, "hint", "") or "Repair what the server says, then validate again."
            issues = [Issue(severity, f"could not be checked ({BROKEN_OFF}): {text}{shown}", hint, restart=False)]
        seconds = time.monotonic() - begun
        for issue in issues or [Issue(SUCCEEDED, "")]:
            self.add(check, issue, seconds)
        return all(issue.severity != FAILED for issue in issues)

    def add(self, check: Check, issue: Issue, seconds: float) -> None:
        """Put what a check yielded into the report."""
        azure = issue.azure_code or (check.azure_code if " " not in check.azure_code else "")
        broken = issue.severity != SUCCEEDED
        managed = check.side != "runtime" and self.context.profile(check.side).managed
        who = responsible(issue.who or check.who, check.side, managed)
        self._keep(
            Finding(
                check.code,
                azure if broken else "",
                check.scope,
                check.side,
                self.context.database,
                issue.object,
                check.name,
                issue.severity,
                issue.message,
                issue.fix,
                round(seconds, 3),
                issue.data,
                who if broken else "",
                broken and (check.restart if issue.restart is None else issue.restart),
            )
        )

    def add_other(self, code: str, side: str, issue: Issue) -> None:
        """Put a finding into the report that is no check's own."""
        name, dummy, dummy2, who, dummy3 = OUTSIDE_REGISTRY[code]
        scope = "database" if self.context.database else "instance"
        self._keep(
            Finding(
                code,
                "",
                scope,
                side,
                self.context.database,
                issue.object,
                name,
                issue.severity,
                issue.message,
                issue.fix,
                0.0,
                issue.data,
                who,
            )
        )

    def _keep(self, finding: Finding) -> None:
        self.result.findings.append(finding)
        self.report({"validation": finding.to_dict()})
