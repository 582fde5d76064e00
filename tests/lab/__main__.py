# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The command behind ``scripts/lab``."""

from __future__ import annotations

import argparse
import sys

from lab import rooms, versions
from lab.able import Unable
from lab.place import load


def main() -> int:
    """0: done (``status``: all hosts are up), 1: it went wrong or (``status``) something is down, 3: no lab can be made on this machine."""
    parser = argparse.ArgumentParser(prog="scripts/lab")
    parser.add_argument("action", choices=["up", "down", "status"])
    parser.add_argument("name", nargs="?", default="default")
    parser.add_argument("--init", choices=["auto", "systemd", "plain"], default="auto")
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--runtimes", type=int, choices=[1, 2], default=1)
    parser.add_argument("--source", type=int, default=versions.OWN, metavar="MAJOR")
    parser.add_argument("--target", type=int, default=versions.OWN, metavar="MAJOR")
    words = parser.parse_args()
    try:
        if words.action == "up":
            rooms.up(words.name, words.init, words.direct, words.runtimes, (words.source, words.target))
        return down(words.name) if words.action == "down" else status(words.name)
    except Unable as error:
        print(f"no lab can be made on this machine: {error}", file=sys.stderr)
        return 3
    except (RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def down(name: str) -> int:
    """End it."""
    print(f"lab {name}: {'removed' if rooms.down(name) else 'there was none'}")
    return 0


def status(name: str) -> int:
    """Show the hosts, the inventory and how to log in."""
    rows = rooms.status(name)
    if not rows:
        print(f"lab {name}: there is none")
        return 1
    place = load(name)
    for host, addresses, kind, state in rows:
        print(f"{host:8} {addresses:26} {kind:8} {state}{f'  PostgreSQL {place.major(host)}' if place.major(host) else ''}")
    print(f"inventory: {place.inventory}\nssh: ssh -F {place.keys / 'config'} source|runtime|target")
    return 0 if all(row[3] == "up" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
