# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""``status``: the migrations of this host on a terminal, once or again and again. Reads files only."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import typing as t
from pathlib import Path

from ..migration.paths import DEFAULT_HOME
from ..migration.states import ACTIVE, State
from ..monitor.screen import detail_lines
from ..monitor.text import clock, grid
from .manager import Manager

CLEAR = "\x1b[H\x1b[2J"
"""Cursor home, erase the screen (ECMA-48)."""

UNKNOWN = 4


def main(argv: t.Sequence[str], out: t.TextIO | None = None) -> int:
    """Show the list, or one migration; with ``--watch`` until it is over or somebody interrupts.

    :return: 0, or 4 where there is no such migration.
    """
    parser = argparse.ArgumentParser(prog="pg-migration status", description="The migrations of this host, or the details of one.")
    parser.add_argument("name", nargs="?", help="name or key of a migration; all without")
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="state directory")
    parser.add_argument("--watch", action="store_true", help="go on showing it; a line when it changes where that is no terminal")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two looks")
    args = parser.parse_args(argv)
    stream = out or sys.stdout
    manager = Manager(args.home)
    try:
        return _watch(manager, args.name, args.interval, stream) if args.watch else _once(manager, args.name, stream)
    except KeyboardInterrupt:
        return 0


def _once(manager: Manager, name: str | None, out: t.TextIO) -> int:
    out.write("\n".join(_look(manager, name)[0]) + "\n")
    return UNKNOWN if _missing(manager, name) else 0


def _watch(manager: Manager, name: str | None, interval: float, out: t.TextIO) -> int:
    told: list[str] = []
    while not _missing(manager, name):
        lines, changes, active = _look(manager, name)
        if out.isatty():
            size = shutil.get_terminal_size()
            out.write(CLEAR + "\n".join(line[: size.columns] for line in lines[: size.lines - 1]) + "\n")
        elif changes != told:
            out.write("\n".join(line for line in changes if line not in told) + "\n")
            told = changes
        out.flush()
        if not active:
            return 0
        time.sleep(interval)
    out.write(f"There is no migration {name}.\n")
    return UNKNOWN


def _missing(manager: Manager, name: str | None) -> bool:
    return bool(name) and manager.status(str(name)) is None


def _look(manager: Manager, name: str | None) -> tuple[list[str], list[str], bool]:
    """The screen, the lines that tell of changes, and whether anything goes on."""
    if name:
        found = manager.status(name)
        statuses = [found] if found else []
        shown = detail_lines(found) if found else [f"There is no migration {name}."]
    else:
        statuses = manager.list()
        shown = grid(statuses) + [line for one in statuses if State(one["state"]) in ACTIVE for line in ["", *detail_lines(one)]]
    changes = [f"{clock(one['started'])}  {one['name']}  {one['state']}  {one['summary']}" for one in statuses]
    return shown, changes, any(State(one["state"]) in ACTIVE for one in statuses)
