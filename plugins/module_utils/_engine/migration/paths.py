# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Where everything lies on the runtime host, and how files there are written: atomically, readable by their owner alone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import typing as t
from pathlib import Path

from ..errors import ServiceError
from ..spec import MigrationSpec

DEFAULT_HOME = Path("/var/lib/pg_migration")


@dataclasses.dataclass(frozen=True)
class MigrationPaths:
    """The folder ``HOME/migrations/KEY`` of one migration."""

    home: Path
    key: str

    @property
    def folder(self) -> Path:
        """All that belongs to this migration alone."""
        return self.home / "migrations" / self.key

    @property
    def catalogue(self) -> Path:
        """The record of all migrations of this host."""
        return self.home / "catalogue.db"

    @property
    def engine(self) -> Path:
        """The zipapp that the service runs."""
        return self.home / "engine" / "current"

    def command(self, role: str, database: str = "") -> list[str]:
        """The argv of one of the engine's processes: ``cli.py ROLE`` for this migration."""
        words = [sys.executable, str(self.engine), role, "--home", str(self.home), "--migration", self.key]
        return [*words, f"--database={database}"] if database else words  # in one: it may begin with a dash

    @property
    def spec(self) -> Path:
        """The specification, without secrets."""
        return self.folder / "spec.json"

    @property
    def secrets(self) -> Path:
        """The passwords of both endpoints (0600)."""
        return self.folder / "secrets.json"

    @property
    def status(self) -> Path:
        """Live figures, replaced atomically by the service."""
        return self.folder / "status.json"

    @property
    def history(self) -> Path:
        """Samples of the whole run, for the curves of the page."""
        return self.folder / "history.json"

    @property
    def page(self) -> Path:
        """The page: live view and final report."""
        return self.folder / "report.html"

    @property
    def log(self) -> Path:
        """What the service and its children said."""
        return self.folder / "service.log"

    @property
    def lock(self) -> Path:
        """Held by ``flock`` for as long as the service lives; a process id in a file could be another's by now."""
        return self.folder / "lock"

    @property
    def control(self) -> Path:
        """The Unix socket for commands."""
        return self.folder / "control.sock"

    @property
    def asked(self) -> Path:
        """Somebody wants the service to go on: what has failed is not taken up again by a host that merely starts."""
        return self.folder / "asked"

    @property
    def fence(self) -> Path:
        """What the fence changed on the source, written before it does."""
        return self.folder / "fence.json"

    @property
    def fence_mark(self) -> Path:
        """Tells of the user's command that stops the writers while it runs."""
        return self.folder / "fence_command"

    def _database(self, kind: str, database: str) -> Path:
        safe = re.sub(r"[^A-Za-z0-9_-]", lambda m: f"%{ord(m.group()):x}.", database)  # the dot ends the number
        return self.folder / kind / safe

    def spool(self, database: str) -> Path:
        """Changes received and not yet removed."""
        return self._database("spool", database)

    def work(self, database: str) -> Path:
        """Schema archive and the worker's own memory."""
        return self._database("work", database)

    def make(self) -> None:
        """Make the folder (0700), owned by the owner of ``HOME``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder.parent, self.folder):
            folder.chmod(0o700)
            own(folder, self.home)

    def write_spec(self, spec: MigrationSpec) -> None:
        """Keep ``spec`` and its secrets for the service."""
        write_json(self.spec, spec.public())
        write_json(self.secrets, {"source": spec.source.password, "target": spec.target.password})
        for path in (self.spec, self.secrets):
            own(path, self.home)

    def read_spec(self) -> MigrationSpec:
        """The specification as :meth:`write_spec` left it.

        :raises ServiceError: if it is not there.
        """
        data, secrets = read_json(self.spec), read_json(self.secrets)
        if data is None or secrets is None:
            raise ServiceError(f"No specification in {self.folder}.", hint="Run the playbook pgops.migration.migrate again.")
        for side in ("source", "target"):
            data[side]["password"] = secrets[side]
        spec = MigrationSpec.from_dict(data)
        ends = {side: dataclasses.replace(getattr(spec, side), tag=spec.key) for side in ("source", "target")}
        return dataclasses.replace(spec, **ends)


def write_json(path: Path, data: t.Any, *, durable: bool = True) -> None:
    """Replace ``path`` (0600) by ``data``; a reader sees the old or the new text, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(data, file, default=str)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path) -> t.Any:
    """What :func:`write_json` wrote, or None where nothing is."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def private(path: Path) -> Path:
    """``path``, an empty file of mode 0600 where there was none: what opens it next may run under a more generous umask."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    return path


def own(path: Path, model: Path) -> None:
    """Give ``path`` to the owner of ``model``: a module may run as root, the service does not."""
    if os.geteuid() == 0:
        stat = model.stat()
        os.chown(path, stat.st_uid, stat.st_gid)
