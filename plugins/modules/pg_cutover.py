#!/usr/bin/python
# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_cutover
short_description: Switch a migration over to its target
version_added: 1.0.0
author:
  - The pgops.migration authors (@pgops)
description:
  - Fences the source, lets the target catch up to a marker, sets sequences, releases the target and compares every row.
  - Until the release everything can be given back, and is, when something fails or O(cutover.max_pause) has passed. The source is writable
    again then, the stream goes on, and the task fails with the reason.
  - When the migration has succeeded already, nothing changes and the same result is returned.
  - Before anything is done, what it needs is checked, and the pause is predicted from what a marker takes from source to target now.
  - In check mode that is all. The checks and the forecast are returned, and the task fails with what the cutover would be refused with.
  - With O(cutover.databases) it is done for some databases of the migration, while the others go on streaming.
  - With O(rollback=prepared) a stream from the target back to the source is left behind. The service on the runtime host starts it by
    itself, the task waits until it runs, and O(state=rolled_back) switches back by it, with the same guarantees. O(state=finished) gives
    it up.
options:
  state:
    description:
      - With V(switched) the target becomes the server of the applications.
      - With V(rolled_back) the source does again, with all that was written to the target since. It needs O(rollback=prepared) at the
        cutover. The options of O(cutover) hold for it as well, with O(cutover.rollback_release) in the place of O(cutover.release).
      - With V(finished) the stream back to the source ends and everything that belongs to it is removed from both servers. The source stays
        fenced.
    type: str
    choices: [switched, rolled_back, finished]
    default: switched
  wait_timeout:
    description:
      - Most seconds to watch. The cutover itself is limited by O(cutover.max_pause); the comparison of all rows comes after it.
      - When they are over, RV(reached) is V(false), and another call goes on watching.
    type: int
    default: 600
extends_documentation_fragment:
  - pgops.migration._attributes
  - pgops.migration._attributes.action
  - pgops.migration._attributes.actiongroup
  - pgops.migration._migration
  - pgops.migration._endpoints.source
  - pgops.migration._endpoints.target
  - pgops.migration._migration.host
seealso:
  - module: pgops.migration.pg_cdc_stream
  - module: pgops.migration.pg_migration_info
"""

EXAMPLES = r"""
- name: Switch over, with at most ten seconds without writes
  pgops.migration.pg_cutover:
    name: shop-2026
    mode: online
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
    databases: "{{ pg_migration.databases }}"
    cutover:
      max_pause: 10
  register: cutover

- name: Go back to the source
  pgops.migration.pg_cutover:
    state: rolled_back
    name: shop-2026
    mode: online
    rollback: prepared
    source: "{{ pg_migration.source }}"
    target: "{{ pg_migration.target }}"
    databases: "{{ pg_migration.databases }}"

- name: Tell how long writers were paused
  ansible.builtin.debug:
    var: cutover.pause_seconds
"""

RETURN = r"""
reached:
  description: Whether the migration has succeeded, or that of all the databases in O(cutover.databases) where some are named there.
  returned: success
  type: bool
phases:
  description: The phases of the cutover in their order.
  returned: when a cutover was made
  type: list
  elements: dict
  contains:
    name:
      description: What the phase is called.
      type: str
      sample: drain
    seconds:
      description: How long it took.
      type: float
      sample: 0.31
    text:
      description: What it did.
      type: str
      sample: marker 4/7A0C1F28 applied
pause_seconds:
  description: Seconds between fence and release, in which nothing could be written; none without a fence.
  returned: when a cutover was made
  type: float
  sample: 1.02
forecast_seconds:
  description: The pause that was predicted before; none where it could not be known.
  returned: when a cutover was made, or in check mode
  type: float
  sample: 0.9
checks:
  description: What was checked before, with C(name), C(severity), C(text) and C(hint).
  returned: when a cutover was made, or in check mode
  type: list
  elements: dict
release_error:
  description: Why the writers were not led to the target, though it is complete and the server now; none where they were.
  returned: when a cutover was made
  type: str
time:
  description: For each database, when the last transaction that is on the target was committed on the source.
  returned: when a cutover was made
  type: dict
  sample: {shop: "2026-11-23 02:14:24.22725+00"}
lsn:
  description: The cutover point of each database. Every commit up to it is on the target.
  returned: when a cutover was made
  type: dict
  sample: {shop: 4/7A0C1F28}
removed:
  description: What was removed from both servers.
  returned: with O(state=finished)
  type: list
  elements: str
notes:
  description: What could not be restored on the source.
  returned: with O(state=finished)
  type: list
  elements: str
verification:
  description: What the comparison of all rows found.
  returned: when it was made
  type: dict
lines:
  description: The report for people.
  returned: when a cutover was made
  type: list
  elements: str
latency_seconds:
  description: Age of the last source commit that the target had before the cutover; in check mode, what it has now.
  returned: when the migration exists
  type: float
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

import dataclasses
import typing as t

from ..module_utils._ansible.module import MigrationModule
from ..module_utils._ansible.options import migration_options, wait_options
from ..module_utils._ansible.watch import Status, describe, fail_if_failed, latency, watch
from ..module_utils._engine.cutover.machine import expectation
from ..module_utils._engine.errors import CutoverAborted, MigrationError, ServiceError
from ..module_utils._engine.monitor.text import cutover_lines
from ..module_utils._engine.service.switch import BROKEN_OFF
from ..module_utils._engine.spec import CutoverOptions

if t.TYPE_CHECKING:
    from ..module_utils._engine.service.manager import Manager
    from ..module_utils._engine.spec import MigrationSpec

TOLD = ("phases", "pause_seconds", "lsn", "time", "fenced_at", "released_at", "release_error", "forecast_seconds", "checks")
NO_WAY_BACK = "PGM5202"
FOLLOWS = ("WaitingForUserAction", "Succeeded")
KEYS = tuple(field.name for field in dataclasses.fields(CutoverOptions))


def refuse_early(status: Status, asked: t.Collection[str]) -> None:
    """Refuse a cutover that cannot be (R90). Databases that are ``asked`` for by name need not wait for the copies of others.

    :raises CutoverAborted: saying in which state the migration is.
    """
    if status["mode"] != "online":
        raise CutoverAborted(f"Cutover refused: {status['name']} is an offline migration; it ends by itself.", code="PGM5003")
    if status["state"] != "WaitingForUserAction" and not (asked and status["substate"] == "MigratingData"):
        raise CutoverAborted(
            f"Cutover refused: {status['name']} is {status['state']} / {status['substate']}, not WaitingForUserAction.",
            code="PGM5001",
            hint="Wait until the playbook migrate reports WaitingForCutoverTrigger.",
        )


def completing(status: Status) -> bool:
    """Is an attempt under way?"""
    return (status["state"], status["substate"]) == ("InProgress", "CompletingMigration")


def given_back(status: Status, began: str | None) -> bool:
    """Has this attempt been given back? An older one has another ``fenced_at`` and text."""
    return status["substate"] != "CompletingMigration" and token(status) not in (None, began)


def switched(status: Status, asked: t.Collection[str]) -> bool:
    """Is the migration of the databases that were ``asked`` for over, or else of all?"""
    finished = {name for name, figures in status["progress"].items() if figures.get("phase") == "finished"}
    return status["state"] == "Succeeded" or bool(asked) and finished.issuperset(asked)


def token(status: Status) -> str | None:
    """What tells the last attempt that was given back from another."""
    cutover = status.get("cutover") or {}
    return f"{cutover.get('fenced_at')} {cutover.get('given_back')} {cutover.get('phases')}" if cutover.get("given_back") else None


def tell(module: MigrationModule, status: Status, asked: t.Collection[str] = ()) -> None:
    """Put the cutover's result into the module's."""
    describe(module, status, reached=switched(status, asked))
    cutover = status.get("cutover")
    if cutover and not cutover.get("given_back"):
        picked = {key: cutover.get(key) for key in TOLD}
        if cutover.get("release_error"):
            module.warn(f"The target is the server now, but the writers were not led there: {cutover['release_error']}")
        module.result.add(**picked, verification=status.get("verification"), lines=cutover_lines(status))


def options(module: MigrationModule) -> dict[str, t.Any]:
    """The options of the cutover that the task gives. A rollback leads the writers elsewhere, and all databases at once."""
    given = {key: value for key in KEYS if (value := module.params["cutover"][key]) is not None}
    if module.params["state"] == "rolled_back":
        given.update(release=given["rollback_release"], rollback_release=[], databases=[])
    return given


def predict(module: MigrationModule, told: dict[str, t.Any]) -> None:
    """Tell what would be: the checks, the pause; fail with what the cutover would be refused with."""
    lines = [f"{check['severity']:<10} {check['name']:<22} {check['text']}" for check in told["checks"]]
    lines.append(expectation(told))
    module.result.add(checks=told["checks"], forecast_seconds=told["forecast_seconds"], lines=lines, summary=lines[-1])
    if told["refused"]:
        module.result.changed = False
        module.fail(MigrationError.from_dict(told["refused"]))


def warn_unproven(module: MigrationModule, status: Status) -> None:
    """Rows that nobody compared, though it was asked for, are told each time."""
    lost = [name for name, reason in (status.get("unproven") or {}).items() if reason == BROKEN_OFF]
    if lost:
        module.warn(f"Rows of {', '.join(lost)} were not compared: {BROKEN_OFF}.")


def fail_if_different(module: MigrationModule, status: Status) -> None:
    """A migration whose proof found differences is no success, whatever its state says."""
    warn_unproven(module, status)
    verification = status.get("verification")
    if verification and not verification.get("equal"):
        error = MigrationError(
            f"Source and target of {status['name']} differ as of the cutover.",
            code="PGM6001",
            hint=f"The rows are named in {status['files']['report']} on the runtime host.",
        )
        module.fail(error, phase=status["substate"], state=status["state"])


def plan(status: Status, asked: t.Collection[str]) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    """What a cutover changes: the state, and where databases are named, which of them the target serves."""
    here = sorted(status.get("switched") or {})
    there = sorted({*here, *asked})
    if not asked or len(there) == len(status["databases"]):
        return {"state": status["state"]}, {"state": "Succeeded"}
    return {"state": status["state"], "on_target": here}, {"state": status["state"], "on_target": there}


def cut_over(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """Trigger the cutover where it was not yet, and watch it."""
    status = manager.status(spec.key)
    if status is None:
        missing = MigrationError(
            f"There is no migration {spec.name} to this target.", code="PGM5004", hint="Run the playbook migrate first."
        )
        if not module.check_mode:
            raise missing
        module.warn(missing.message + " " + missing.hint)
        module.result.add(summary="nothing to cut over yet", reached=False)
        return
    before, asked = latency(status), options(module)["databases"]
    if switched(status, asked):
        tell(module, status, asked)
        fail_if_different(module, status)
        return
    under_way = completing(status)
    if not under_way:
        fail_if_failed(module, status, asked)
        refuse_early(status, asked)
    before_it, after_it = plan(status, asked)
    module.result.plan(not under_way, before_it, after_it)
    if module.check_mode:
        tell(module, status, asked)
        module.result.add(latency_seconds=before)
        if not under_way:
            predict(module, manager.precheck(spec.key, options(module)))
        return
    began = token(status)
    if not under_way:
        manager.request_cutover(spec.key, options(module))

    def over(seen: Status) -> bool:
        if completing(seen):  # a database may be done before the attempt is
            return False
        return switched(seen, asked) or given_back(seen, began) or under_way  # what we found under way was none of ours

    ended = watch(manager, spec.key, over, module.params["wait_timeout"], asked)
    tell(module, ended, asked)
    module.result.add(latency_seconds=before)
    fail_if_failed(module, ended, asked)
    fail_if_different(module, ended)
    if given_back(ended, began):
        module.result.changed = False
        module.fail(MigrationError.from_dict(ended["cutover"]["given_back"]), phase=ended["substate"], state=ended["state"])


def await_way_back(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """Wait until the source follows the target: the service sees to that by itself, and is started again here if it was ended since."""
    status = manager.status(spec.key)
    if module.check_mode or status is None or status["state"] != "Succeeded":
        return
    try:
        started = manager.start_way_back(spec)
    except ServiceError as exc:
        if exc.code != NO_WAY_BACK:
            raise
        return  # given up, or asked for after the cutover
    if started:
        module.result.changed = True
    back = watch(manager, manager.way_back(spec).key, lambda seen: seen["state"] in FOLLOWS, module.params["wait_timeout"])
    if back["error"]:
        module.warn(f"The way back: {back['error']['message']} {back['error'].get('hint') or ''}".strip())
    tell(module, manager.status(spec.key) or status)


def roll_back(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """Switch back to the source, with what was written to the target since."""
    back = manager.way_back(spec)
    status = manager.status(back.key)
    if status is None and not module.check_mode:
        raise ServiceError(
            f"There is no way back of {spec.name}.", code=NO_WAY_BACK, hint="It begins with the end of a cutover with rollback: prepared."
        )
    if status is not None and status["state"] == "Canceled":
        raise ServiceError(f"The way back of {spec.name} was given up.", code=NO_WAY_BACK)
    cut_over(module, manager, back)


def finish(module: MigrationModule, manager: Manager, spec: MigrationSpec) -> None:
    """Give the way back up."""
    status = manager.status(spec.key)
    back = (status or {}).get("way_back") or {}
    over = back.get("state") in (None, "Succeeded", "Canceled")
    if over and status is None and manager.way_back_left(spec):
        over, back = False, {"state": "forgotten"}
    module.result.plan(not over, {"way_back": back.get("state")}, {"way_back": "Canceled"})
    module.result.add(reached=True, removed=[], notes=[], summary="there is no way back" if over else "the way back is given up")
    if not (over or module.check_mode):
        module.result.add(**manager.end_way_back(spec))
        status = manager.status(spec.key)
    if status:
        describe(module, status, reached=True)


def main() -> t.NoReturn:
    """Entry point."""
    state: dict[str, t.Any] = {"type": "str", "choices": ["switched", "rolled_back", "finished"], "default": "switched"}
    module = MigrationModule(migration_options().merge(wait_options(600)).update(state=state))
    with module.reporting():
        manager = module.manager()
        spec = manager.begun(module.spec())
        if module.params["state"] == "switched":
            cut_over(module, manager, spec)
            if spec.rollback == "prepared":
                await_way_back(module, manager, spec)
        else:
            (roll_back if module.params["state"] == "rolled_back" else finish)(module, manager, spec)
    module.exit()


if __name__ == "__main__":
    main()
