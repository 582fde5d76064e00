# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The file that leads the writers (``cutover.release_file``): written at a release with a part for each database of the migration, those
that were switched over with the target's address, the others with the source's.

All of it follows from the record, so a service that was killed writes the same file again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from pathlib import Path

from ..cutover.watchdog import FenceJournal
from ..errors import CutoverAborted
from ..migration.catalogue import Catalogue
from ..migration.paths import MigrationPaths
from ..spec import CutoverOptions, MigrationSpec
from .sets import FACT

Record = t.Mapping[str, t.Any]
Address = t.Tuple[str, int]


def write_release(paths: MigrationPaths, spec: MigrationSpec, options: CutoverOptions) -> str:
    """Write the file so that the databases of ``options`` are found at the target of ``spec``; in words.

    :raises CutoverAborted: PGM5119 if it cannot be written; it is as it was then.
    """
    path = Path(options.release_file)
    places = whereabouts(paths, spec, options.databases)
    parts = [options.release_template.format(host=host, port=port, dbname=name) for name, (host, port) in places.items()]
    try:
        replace(path, "".join(part if part.endswith("\n") else part + "\n" for part in parts))
    except OSError as exc:
        raise CutoverAborted(
            f"{path} could not be written: {exc.strerror or exc}.",
            code="PGM5119",
            hint=f"Write it by hand for {', '.join(f'{name} at {host}:{port}' for name, (host, port) in places.items())}.",
        ) from exc
    return f"{path} written"


def whereabouts(paths: MigrationPaths, spec: MigrationSpec, now: t.Collection[str]) -> dict[str, Address]:
    """Each database of the whole migration, those of its other sets among them, and the server that it is found at once those of ``now``
    are at the target of ``spec``."""
    records = Catalogue(paths.catalogue).list()
    own = next((record for record in records if record["key"] == (spec.back_of or spec.key)), None)
    found: dict[str, Address] = {}
    for part in _parts(records, own) if own else ():
        moved = _moved(paths.home, part)
        for back in records:
            if back["spec"].get("back_of") == part["key"]:
                moved -= _moved(paths.home, back)
        for name in part["spec"]["databases"]:
            found[name] = _address(part["spec"]["target" if name in moved else "source"])
    if own:
        for name in own["facts"].get(FACT, {}).get("databases", ()):  # of a set that has not begun
            found.setdefault(name, _address(own["spec"]["source"]))
    return {**found, **dict.fromkeys(now, (spec.target.host, spec.target.port))}


def _parts(records: t.Sequence[Record], own: Record) -> list[Record]:
    """All sets of the migration that ``own`` is one of."""
    name = own["facts"].get(FACT, {}).get("name")
    if name is None:
        return [own]
    return [one for one in records if one["facts"].get(FACT, {}).get("name") == name and one["target"] == own["target"]]


def _moved(home: Path, record: Record) -> set[str]:
    """Databases that it has switched over: the fence's journal knows of a release before the record can."""
    return {*record["facts"].get("switched", {}), *FenceJournal(MigrationPaths(home, record["key"]).fence).released()}


def _address(end: t.Mapping[str, t.Any]) -> Address:
    return str(end["host"]), int(end["port"])


def replace(path: Path, text: str) -> None:
    """Replace the file by ``text``, with the mode, owner and group that it has, as far as we may give it away; a reader sees the old or the
    new text. Where the old one is the same, nothing is done.

    :raises OSError: as the system says it.
    """
    real = path.resolve()
    before = real.stat()
    if real.read_bytes() == text.encode():
        return
    temporary = real.with_name(f".{real.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            for owner in ((before.st_uid, before.st_gid), (-1, before.st_gid)):
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), *owner)
                    break
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            os.fsync(file.fileno())
        os.replace(temporary, real)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
