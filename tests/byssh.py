# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A reader of the documentation at the control node of a lab: types a command as a page has it, and looks at the hosts afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import servers
import yaml
from lab.databases import psql
from lab.keys import ssh
from lab.place import REPO, Place

SHOP = ("public.customer", "public.purchase")
"""The tables of the lab's database ``shop``; each has a key ``id``."""


class Played(t.NamedTuple):
    """What a command said, and over all hosts the sum of ``changed=``."""

    text: str
    changed: int


def describe(lab: Place, variables: t.Mapping[str, t.Any] | None = None, **migration: t.Any) -> None:
    """Let the inventory say so: keys of ``pg_migration``, and other ``variables`` beside it."""
    inventory = yaml.safe_load(lab.inventory.read_text())
    inventory["all"]["vars"].update(variables or {})
    inventory["all"]["vars"]["pg_migration"].update(migration)
    lab.inventory.write_text(yaml.safe_dump(inventory))


def begin(lab: Place, command: str) -> subprocess.Popen[str]:
    """Type ``command`` in the lab's folder, whose ``inventory`` is the lab's."""
    folder = lab.folder / "inventory"
    if not folder.exists():
        folder.mkdir()
        (folder / "hosts.yml").symlink_to(lab.inventory)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(REPO / ".work" / "link"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
    }
    return subprocess.Popen(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=lab.folder,
        env=environment, start_new_session=True, preexec_fn=servers.die_with_parent,
    )  # fmt: skip


def play(lab: Place, command: str, good: bool = True) -> Played:
    """Type it and wait for its end, which must be as ``good`` says."""
    process = begin(lab, command)
    text, dummy = process.communicate(timeout=600)
    assert (process.returncode == 0) is good, f"{command}: {text[-6000:]}"
    return Played(text, sum(int(number) for number in re.findall(r"changed=(\d+)", text.partition("PLAY RECAP")[2])))


def content(lab: Place, host: str, database: str = "shop", tables: t.Sequence[str] = SHOP) -> str:
    """All rows of these tables, as a digest and a count for each."""
    query = "SELECT md5(string_agg(x::text, '|' ORDER BY x.id)), count(*) FROM {} x;"
    return psql(lab, host, "".join(query.format(table) for table in tables), database)


def databases(lab: Place, host: str) -> list[str]:
    """Those that the server did not have from the beginning."""
    query = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1"
    return psql(lab, host, query).split()


def traces(lab: Place) -> list[str]:
    """Slots and publications on the source, of which every one is a migration's."""
    found = psql(lab, "source", "SELECT slot_name FROM pg_replication_slots").split()
    for database in databases(lab, "source"):
        found += psql(lab, "source", "SELECT pubname FROM pg_publication", database).split()
    return found


def restart(lab: Place, host: str) -> None:
    """Restart the server on ``host``, as its administrator."""
    ssh(lab, host, f"sudo pg_ctlcluster {lab.major(host)} main restart")
