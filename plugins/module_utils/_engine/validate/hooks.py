# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What leads the writers in a cutover, looked at before it is needed: programs of the user's, a file to be written, PgBouncers.

Whoever looks must be who runs them, the service: then the answer holds for its rights, its search path and the sandbox of its unit. What a
program does when it is run cannot be known.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
import typing as t
from pathlib import Path

from ..errors import CutoverAborted
from ..postgres.pgbouncer import order, user_of
from ..spec import CutoverOptions
from .context import Context
from .registry import PLAYBOOK, Issue, check, names, ok, warn

COMMANDS = ("fence_command", "unfence_command", "release", "rollback_release")
LOOK_SECONDS = 5.0
SANDBOX = "What a hook may do under systemd is said in docs/inventory.md, section cutover."


class Look(t.NamedTuple):
    """One thing that was looked at: ``trouble`` is empty where it will do."""

    name: str
    text: str
    trouble: str = ""
    hint: str = ""


def look_at(options: CutoverOptions, databases: t.Sequence[str], *, rollback: bool) -> list[Look]:
    """Everything that a cutover of ``databases`` with ``options`` relies on outside of both servers.

    :param rollback: is ``rollback_release`` going to be used?
    """
    looks = [_command(key, getattr(options, key)) for key in COMMANDS if getattr(options, key) and (rollback or key != "rollback_release")]
    if options.release_file:
        looks.append(_file(Path(options.release_file)))
    return looks + [_pooler(admin, options.pgbouncer_databases or databases) for admin in options.pgbouncer]


def _command(key: str, words: t.Sequence[str]) -> Look:
    name, program = f"cutover.{key}", shutil.which(words[0])
    if program is None:
        there = Path(words[0]).is_file()
        trouble = f"{words[0]} {'cannot be executed by the user of the service' if there else 'does not exist on the runtime host'}"
        return Look(
            name, "", trouble, f"Correct {name}: a list of words, the program first, which the service's user must be able to execute."
        )
    if missing := _interpreter_missing(Path(program)):
        return Look(
            name, "", f"{program} is a script for {missing}, which does not exist", f"Install it, or correct the first line of {program}."
        )
    if os.geteuid() and os.stat(program).st_mode & stat.S_ISUID and _no_new_privileges():
        trouble = f"{program} cannot get more rights than the service has: its unit has NoNewPrivileges"
        return Look(name, "", trouble, f"Do without {words[0]}. {SANDBOX}")
    return Look(name, program)


def _interpreter_missing(program: Path) -> str:
    """What the script is for, if that is not there; the kernel tells no more than "no such file" of it."""
    try:
        with program.open("rb") as file:
            line = file.readline(256)
    except OSError:
        return ""
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and not Path(words[0]).exists():
        return words[0]
    by_path = len(words) > 1 and Path(words[0]).name == "env" and not words[1].startswith("-") and "=" not in words[1]
    return words[1] if by_path and shutil.which(words[1]) is None else ""


def _no_new_privileges() -> bool:
    """proc_pid_status(5)."""
    try:
        return "\nNoNewPrivs:\t1\n" in Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return False


def _file(path: Path) -> Look:
    """It is replaced by a new one with the same permissions, so its folder must be writable, and its readers must not be shut out."""
    name, real = "cutover.release_file", path.resolve()
    try:
        found = real.stat()
    except OSError as exc:
        return Look(name, "", f"{path}: {exc.strerror}", "Write it once as it is to be at the source; who reads it needs it anyway.")
    if not stat.S_ISREG(found.st_mode):
        return Look(name, "", f"{path} is no file", "Name a file.")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        hint = "Let the service's user write to the folder, and under systemd name it in pg_migration_runtime_writable_paths"
        return Look(name, "", f"the user of the service may not write to {real.parent}", f"{hint} (playbook provision_runtime).")
    ours = os.geteuid() in (0, found.st_uid) and (os.geteuid() == 0 or found.st_gid in (os.getegid(), *os.getgroups()))
    if not ours and not found.st_mode & stat.S_IROTH:
        trouble = f"a new {path} could not be given to the owner and group that it has, and who reads it would be shut out"
        return Look(name, "", trouble, "chown it to the service's user, with a group of that user's which its reader is in, too.")
    return Look(name, str(path))


def _pooler(admin: str, databases: t.Sequence[str]) -> Look:
    name, deadline = "PgBouncer", time.monotonic() + LOOK_SECONDS
    try:
        user = user_of(admin)
        known = {row["name"] for row in order(admin, "SHOW DATABASES", deadline)}
        settings = {row["key"]: row["value"] for row in order(admin, "SHOW CONFIG", deadline)}
    except CutoverAborted as exc:
        return Look(name, "", exc.message, exc.hint or "")
    missing = [database for database in databases if database not in known]
    if missing:
        hint = f"It knows {names(sorted(known - {'pgbouncer'})) or 'none'}: name those to pause in cutover.pgbouncer_databases."
        return Look(name, "", f"it does not know {names(missing)}", hint)
    admins = [one.strip() for one in settings.get("admin_users", "").split(",")]
    if user and user != "pgbouncer" and user not in admins:
        return Look(name, "", f"{user} may look, but not PAUSE: it is not in its admin_users", f"Add {user} to admin_users and RELOAD.")
    return Look(name, f"answers, and knows {names(databases)}")


@check(
    "PGM2025",
    "hooks of the cutover",
    who=PLAYBOOK,
    side="runtime",
    online=True,
    worst="Warning",
    remedy="correct the section cutover, or make on the runtime host what it names",
)
def hooks(ctx: Context) -> t.Iterator[Issue]:
    """Programs, file and PgBouncers that the section `cutover` names are there. The cutover looks again, and is refused if not."""
    looks = look_at(ctx.spec.cutover, ctx.databases, rollback=ctx.spec.rollback == "prepared")
    for look in looks:
        if look.trouble:
            yield warn(f"{look.name}: {look.trouble}; the cutover would be refused", look.hint, object=look.name)
    if not any(look.trouble for look in looks):
        yield ok(", ".join(f"{look.name}: {look.text}" for look in looks) or "none")
