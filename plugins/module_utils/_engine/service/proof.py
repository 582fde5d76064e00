# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Verification on demand, from a process of its own: of a migration that is streaming, or of two databases that stand still."""

from __future__ import annotations

import secrets
import time
import typing as t

from ..cutover.completion import emit_marker
from ..errors import VerificationFailed
from ..migration.catalogue import now
from ..migration.paths import MigrationPaths, own, write_json
from ..postgres.identifiers import SCHEMA
from ..postgres.lsn import format_lsn, parse_lsn
from ..postgres.session import connect
from ..spec import MigrationSpec
from ..verify.compare import Report, VerifyResult, verify_database
from ..verify.live import verify_live

SETTLE_SECONDS = 600.0
POLL = 0.05
FILE = "verification.json"
"""In the migration's folder: the certificate of the last verification."""


class Settler:
    """Waits until the target has what the source has committed, by the position that the target itself shows (law 3).

    :ivar lsn: up to where it had everything at the last wait.
    """

    def __init__(self, spec: MigrationSpec, database: str) -> None:
        self._spec, self._database = spec, database
        self.lsn = 0

    def __call__(self) -> None:
        """Wait.

        :raises VerificationFailed: PGM6003 if the stream does not come that far.
        """
        marker = emit_marker(self._spec, self._database, secrets.token_hex(8))
        deadline = time.monotonic() + SETTLE_SECONDS
        with connect(self._spec.target, self._database, purpose="verify") as conn:
            while True:
                row = conn.execute(f"SELECT end_lsn::text FROM {SCHEMA}.progress ORDER BY end_lsn LIMIT 1").fetchone()  # min(): from 13 on
                if row and row[0] and parse_lsn(row[0]) >= marker:
                    self.lsn = marker
                    return
                if time.monotonic() > deadline:
                    raise VerificationFailed(
                        f"The target of {self._database} did not come to {format_lsn(marker)} within {SETTLE_SECONDS:g} s.",
                        code="PGM6003",
                        hint="The stream stands still or is too far behind; see the playbook status.",
                    )
                time.sleep(POLL)


def verify_all(
    paths: MigrationPaths,
    spec: MigrationSpec,
    *,
    streaming: bool,
    switched: t.Container[str] = (),
    jobs: int = 2,
    report: Report | None = None,
) -> dict[str, t.Any]:
    """Compare all databases of ``spec``, write the certificate into the migration's folder where there is one, and return it.

    :param streaming: changes are applied meanwhile; otherwise both sides must stand still for the answer to mean anything.
    :param switched: databases that were cut over; of an online migration the others have their sequences not yet.
    """
    started = time.monotonic()
    databases: dict[str, t.Any] = {}
    lsn: dict[str, str] = {}
    for database in spec.databases:
        result: VerifyResult
        if streaming:
            settle = Settler(spec, database)
            result = verify_live(spec, database, settle, jobs=jobs, report=report)
            lsn[database] = format_lsn(settle.lsn)
        else:
            result = verify_database(spec, database, jobs=jobs, report=report)
            if spec.online and database not in switched:
                result = result.before_cutover()
        databases[database] = result.to_dict()
    certificate = {
        "migration": spec.public(),
        "time": now(),
        "streaming": streaming,
        "lsn": lsn,
        "equal": all(found["equal"] for found in databases.values()),
        "complete": all(found["complete"] for found in databases.values()),
        "rows": sum(found["rows"] for found in databases.values()),
        "seconds": round(time.monotonic() - started, 3),
        "databases": databases,
    }
    if paths.folder.is_dir():
        write_json(paths.folder / FILE, certificate)
        own(paths.folder / FILE, paths.home)
    return certificate
