#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_cdc_stream
short_description: Follow, stop, resume or cancel the change stream of a migration
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Ensures that the changes of the source are streamed to the target, that they are not for the moment, or that the migration is canceled.
  - The stream begins with the base copy, see M(pgops.migration.pg_snapshot_copy), and is run by the same service.
  - A change that the target refuses holds its own database up and no other. The module fails with that error; run again when its cause is
    gone, it lets the stream go on with that very change.
options:
  state:
    description:
      - With V(started) the service of the migration runs, and the module waits for O(wait_for).
      - With V(stopped) the service does not run. The replication slot stays, and the source keeps its WAL for it.
      - With V(absent) the migration is canceled. Slots, publications and sessions of the migration are removed from the source, also when
        the migration was canceled before. What is on the target stays there unless O(drop_target=true).
        A migration that has succeeded cannot be canceled.
    type: str
    choices: [started, stopped, absent]
    default: started
  drop_target:
    description:
      - Drop the databases on the target that this migration has made, and no other. Only for O(state=absent).
    type: bool
    default: false
  forget:
    description:
      - Remove the record of the migration and its folder on the runtime host, report and certificate among them. Only for O(state=absent).
      - An active migration is canceled first. One that has succeeded or failed its validation, or was canceled, only leaves the
        list; nothing on either server is touched. One that has failed is refused until M(pgops.migration.pg_migration_cleanup) has removed
        what it made.
    type: bool
    default: false
  wait_for:
    description:
      - How close the target must be for RV(reached). Only for O(state=started).
    type: dict
    suboptions:
      latency_seconds:
        description:
          - Age of the last source commit that the target has, for the slowest database.
        type: float
      lag_bytes:
        description:
          - Bytes of WAL that the slowest database still has to apply.
        type: int
      lsn:
        description:
          - Position in the source's WAL, as C(pg_current_wal_lsn(\)) gives it, up to which every database must have been applied.
        type: str
  wait_timeout:
    description:
      - Most seconds to watch for O(wait_for).
    type: int
    default: 60
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.action
  - pgops.migration._attributes.actiongroup
  - pgops.migration._migration
  - pgops.migration._endpoints.source
  - pgops.migration._endpoints.target
  - pgops.migration._migration.host
seealso:
  - module: pgops.migration.pg_snapshot_copy
  - module: pgops.migration.pg_cutover
"""

EXAMPLES = r"""
- name: Wait until the target is less than two seconds behind
  pgops.migration.pg_cdc_stream:
    name: shop-2026
    mode: online
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
    databases: "{{ pg_migration.databases }}"
    wait_for:
      latency_seconds: 2
  register: stream
  until: stream.reached
  retries: 30

- name: Cancel the migration and drop what it made on the target
  pgops.migration.pg_cdc_stream:
    name: shop-2026
    mode: online
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
    databases: "{{ pg_migration.databases }}"
    state: absent
    drop_target: true
"""

RETURN = r"""
reached:
  description: Whether the target is as close as O(wait_for) asks, or the stream has ended with the cutover.
  returned: O(state=started)
  type: bool
latency_seconds:
  description: Age of the last source commit that the target has, for the slowest database; none while it is not known.
  returned: O(state=started)
  type: float
  sample: 0.8
latency_minutes:
  description: The same in minutes.
  returned: O(state=started)
  type: float
  sample: 0.01
lag_bytes:
  description: Bytes of WAL that the slowest database still has to apply; none while it is not known.
  returned: O(state=started)
  type: int
  sample: 81920
databases:
  description:
    - Where each database stands, by its name. Counters run since the process that applies the changes of the database began.
  returned: when the migration exists
  type: dict
  contains:
    state:
      description: V(InProgress), V(Failed) while an error holds the database up, or V(Succeeded).
      type: str
    phase:
      description: What it does.
      type: str
    tables_queued:
      description: Tables whose rows wait for their copy.
      type: int
    tables_loading:
      description: Tables that are being copied.
      type: int
    tables_complete:
      description: Tables that have been copied.
      type: int
    tables_errored:
      description: Tables whose copy has failed.
      type: int
    inserts:
      description: Rows inserted by the stream.
      type: int
    updates:
      description: Rows updated by the stream.
      type: int
    deletes:
      description: Rows deleted by the stream.
      type: int
    truncates:
      description: Tables truncated by the stream.
      type: int
    incoming:
      description: Messages received from the source.
      type: int
    applied:
      description: Changes applied to the target.
      type: int
    latency_seconds:
      description: Age of the last source commit that the target has; none while it is not known.
      type: float
    lag_bytes:
      description: Bytes of WAL between source and target.
      type: int
    eta_catch_up_seconds:
      description: Seconds until the target has caught up at the present rates; none if it is not known or will not be.
      type: float
    verdict:
      description: Whether it catches up, and the side that is the limit if it does not.
      type: str
      sample: "will not catch up: target apply is the limit"
    retained_wal_bytes:
      description: Bytes of WAL that the slot holds on the source.
      type: int
    wal_status:
      description: What the source says of them, see C(pg_replication_slots).
      type: str
    applied_lsn:
      description: Position up to which the target has everything.
      type: str
    received_lsn:
      description: Position up to which everything is on the runtime host's disk.
      type: str
    started:
      description: When it began.
      type: str
    ended:
      description: When it ended or was held up.
      type: str
    message:
      description: The last thing to know.
      type: str
    error:
      description: The error that holds it up, with C(table), C(key), C(lsn) and C(statement) in its C(details).
      type: dict
    tables:
      description: For each table C(inserts), C(updates), C(deletes), C(truncates), their sum C(applied), and C(errors).
      type: dict
removed:
  description: What was taken from the source.
  returned: O(state=absent)
  type: list
  elements: str
  sample: [slot pgm_shop_2026_1f0c7a_shop in shop]
dropped:
  description: Databases that were dropped on the target.
  returned: O(state=absent)
  type: list
  elements: str
kept:
  description: Databases that stay on the target and have to be dropped before another attempt.
  returned: O(state=absent)
  type: list
  elements: str
migration:
  description: Name of the migration.
  returned: always
  type: str
  sample: shop-2026
key:
  description: What the migration is called on the runtime host, its name and six digits of its target.
  returned: when the migration exists
  type: str
  sample: shop-2026-1f0c7a
state:
  description: State of the migration.
  returned: when the migration exists
  type: str
  sample: InProgress
substate:
  description: What it does there.
  returned: when the migration exists
  type: str
  sample: MigratingData
summary:
  description: One line that tells how far it is, made for the label of a loop.
  returned: success
  type: str
  sample: MigratingData  shop  37 of 131 chunks  151.0 GB of 390.0 GB  212.0 MB/s
status:
  description:
    - Everything that is known about the migration, with the progress of each database.
    - See RV(pgops.migration.pg_migration_info#module:details) for what it holds.
  returned: when the migration exists
  type: dict
error_code:
  description: Stable code of the error, C(PGM) and four digits.
  returned: failure
  type: str
  sample: PGM1101
hint:
  description: The one thing to do next.
  returned: failure, when there is one
  type: str
  sample: Correct user and password.
"""

import typing as t

from ..module_utils._ansible.argspec import ArgumentSpec
from ..module_utils._ansible.counters import applied_lsn, by_database
from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import migration_options, wait_options
from ..module_utils._ansible.watch import Status, describe, fail_if_failed, lag, latency, watch
from ..module_utils._engine.errors import IllegalTransition, SpecificationError
from ..module_utils._engine.migration.states import State, cancel_hint
from ..module_utils._engine.postgres.lsn import parse_lsn

if t.TYPE_CHECKING:
    from ..module_utils._engine.service.manager import Manager
    from ..module_utils._engine.spec import MigrationSpec


ENDED = ("Succeeded", "ValidationFailed")


def stream_options() -> ArgumentSpec:
    """What this module takes besides the migration."""
    nearness = {"latency_seconds": {"type": "float"}, "lag_bytes": {"type": "int"}, "lsn": {"type": "str"}}
    return ArgumentSpec(
        {
            "state": {"type": "str", "choices": ["started", "stopped", "absent"], "default": "started"},
            "drop_target": {"type": "bool", "default": False},
            "forget": {"type": "bool", "default": False},
            "wait_for": {"type": "dict", "options": nearness},
        }
    )


def wished(module: MigrationModule) -> dict[str, t.Any]:
    """``wait_for`` with its position as a number.

    :raises SpecificationError: if that is no position.
    """
    wanted = dict(module.params["wait_for"] or {})
    try:
        wanted["lsn"] = parse_lsn(wanted["lsn"]) if wanted.get("lsn") else None
    except ValueError:
        raise SpecificationError(
            f"wait_for.lsn is {wanted['lsn']!r}, which is no position in the WAL.", hint="Give it as 16/B374D848."
        ) from None
    return wanted


def near_enough(status: Status, wanted: t.Mapping[str, t.Any]) -> bool:
    """Is the target as close as ``wanted`` says? What is not known is not near."""
    if status["state"] == "Succeeded":
        return True
    if status["substate"] != "WaitingForCutoverTrigger" or status.get("error"):
        return False
    for value, limit in ((latency(status), wanted.get("latency_seconds")), (lag(status), wanted.get("lag_bytes"))):
        if limit is not None and (value is None or value > limit):
            return False
    return wanted.get("lsn") is None or (applied_lsn(status) or 0) >= wanted["lsn"]


def ensure_started(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """The service runs; watch how close the target is."""
    plan = manager.plan(spec)
    module.result.plan(plan.action != "none", plan.before, plan.after)
    wanted = wished(module)
    status = plan.status
    if not module.check_mode:
        started = manager.start(spec)
        status = watch(manager, started["key"], lambda seen: near_enough(seen, wanted), module.params["wait_timeout"])
    if status is None:
        module.result.add(reached=False, summary=f"would {plan.action}")
        return
    describe(module, status, reached=near_enough(status, wanted))
    seconds = latency(status)
    minutes = None if seconds is None else round(seconds / 60, 2)
    module.result.add(latency_seconds=seconds, latency_minutes=minutes, lag_bytes=lag(status), databases=by_database(status))
    if not module.check_mode:
        fail_if_failed(module, status)


def ensure_stopped(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """The service does not run."""
    status = manager.status(spec.key)
    running = bool(status and status["service"]["running"])
    module.result.plan(running, {"service": "running"} if running else {"service": "stopped"}, {"service": "stopped"})
    if running and not module.check_mode:
        status = manager.stop(spec.key)
    if status:
        describe(module, status, reached=True)
        module.result.add(databases=by_database(status))
    else:
        module.result.add(summary="no such migration")


def ensure_absent(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """The migration is canceled, and nothing of it is left on the source."""
    status = manager.status(spec.key)
    if status is None:
        remove_forgotten(module, manager, spec)
        return
    ended = status["state"] in ENDED or status["state"] == "Canceled" and not module.params["drop_target"]
    if module.params["forget"] and ended:
        forget(module, manager, status)
        return
    cancel = status["state"] != "Canceled"
    if status["state"] in (*ENDED, "Failed"):
        raise IllegalTransition(f"{spec.name} is {status['state']} and cannot be canceled.", hint=cancel_hint(State(status["state"])))
    drop = module.params["drop_target"] and bool((status.get("canceled") or {}).get("kept", True))
    module.result.plan(cancel or drop, {"state": status["state"]}, {"state": "Canceled", "databases_dropped": module.params["drop_target"]})
    if not module.check_mode:
        status = manager.cancel(spec.key, drop_target=module.params["drop_target"])
    describe(module, status, reached=True)
    told = status.get("canceled") or {}
    module.result.add(removed=told.get("removed", []), dropped=told.get("dropped", []), kept=told.get("kept", []))
    if not module.check_mode and not cancel:
        module.result.changed = bool(told.get("removed") or told.get("dropped"))
    if module.params["forget"]:
        forget(module, manager, status)


def remove_forgotten(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """This host knows no such migration, but may have lost its state while a slot holds WAL: what is ours is found by name."""
    seen = manager.cleanup(spec.source, spec.target, name=spec.name, drop_target=module.params["drop_target"], dry=module.check_mode)
    module.result.plan(bool(seen["found"]), {"ours": seen["found"]}, {"ours": []})
    known = "was forgotten by this host; what it made was found by name" if seen["found"] else "is not known, and nothing of it was found"
    module.result.add(summary=f"{spec.name} {known}", removed=seen["removed"], dropped=[], kept=[])
    for line in seen["kept"]:
        module.warn(f"Kept: {line}")


def forget(module: MigrationModule, manager: Manager, status: Status) -> None:
    """The migration leaves the list of this host (R119); what became of it is told once more."""
    module.result.plan(True, {"state": status["state"], "record": "present"}, {"record": "absent"})
    if not module.check_mode:
        manager.forget(status["key"])
    describe(module, {**status, "summary": f"{status['state']}, forgotten"}, reached=True)


def main() -> t.NoReturn:
    """Entry point."""
    module = MigrationModule(migration_options().merge(stream_options()).merge(wait_options(60)))
    ensure = {"started": ensure_started, "stopped": ensure_stopped, "absent": ensure_absent}[module.params["state"]]
    with module.reporting():
        manager, spec = module.manager(), module.spec()
        ensure(module, manager, spec if module.params["state"] == "started" else manager.begun(spec))
    module.exit()


if __name__ == "__main__":
    main()
