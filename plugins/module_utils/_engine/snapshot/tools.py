# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""pg_dump and pg_restore: which of the installed ones is right, and how they run without showing a password.

A dump is right only if the tools know both servers, so they must be at least as new as the newer of the two. The password goes
through a password file (mode 0600) that exists only while the tool runs; neither the command line nor the environment has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import tempfile
import threading
import time
import typing as t
from pathlib import Path

from ..errors import CopyError
from ..postgres.identifiers import quote_conninfo
from ..postgres.session import application_name
from ..spec import Endpoint

INSTALLED = Path("/usr/lib/postgresql")
"""Where Debian's packages put one folder for each major version."""

POLL = 0.1
"""Seconds between two looks at the stop event while a tool runs."""


class Stopped(Exception):
    """The stop event was set: unwind, leave everything resumable."""


@dataclasses.dataclass(frozen=True)
class Tools:
    """The client programs of one installation; ``major`` is that of ``pg_dump``."""

    bindir: Path
    major: int
    version: str

    def path(self, program: str) -> str:
        """Full path of ``program``."""
        return str(self.bindir / program)


def version_of(program: Path) -> tuple[int, str] | None:
    """Major version and version text that ``program --version`` prints; None where it cannot run."""
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=20, check=False, env=environment())
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) ((\d+)\S*)", done.stdout)
    return (int(match[2]), match[1]) if match else None


def candidates(bindir: str) -> list[Path]:
    """Folders to look into: ``bindir`` alone if it is given, else Debian's, then those of ``PATH``."""
    if bindir:
        return [Path(bindir)]
    found = [p.parent for p in INSTALLED.glob("*/bin/pg_dump")]
    found += [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep) if p]
    return [p for p in dict.fromkeys(found) if (p / "pg_dump").exists() and (p / "pg_restore").exists()]


def find_tools(bindir: str, needed_major: int) -> Tools:
    """The newest pg_dump with its pg_restore.

    :param bindir: ``copy.bindir`` of the specification, or an empty string.
    :param needed_major: the newer of the servers' major versions.
    :raises CopyError: if there are none, or all are older than ``needed_major``.
    """
    best: Tools | None = None
    for folder in candidates(bindir):
        version = version_of(folder / "pg_dump")
        if version and (best is None or version[0] > best.major):
            best = Tools(folder, *version)
    where = bindir or "the usual folders and PATH"
    if best is None:
        raise CopyError(
            f"pg_dump and pg_restore were not found in {where} of the runtime host.",
            code="PGM3002",
            hint=f"Install postgresql-client-{needed_major} (playbook pgops.migration.provision_runtime), or set copy.bindir.",
        )
    if best.major < needed_major:
        raise CopyError(
            f"pg_dump {best.version} in {best.bindir} is older than PostgreSQL {needed_major} on one of the servers.",
            code="PGM3003",
            hint=f"Install postgresql-client-{needed_major} or newer (playbook pgops.migration.provision_runtime).",
        )
    return best


def environment() -> dict[str, str]:
    """The environment for the tools: ours without any ``PG...`` setting, with messages in English."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


@contextlib.contextmanager
def password_file(endpoint: Endpoint, folder: Path) -> t.Iterator[Path]:
    """A password file for ``endpoint`` in ``folder`` while the block lasts (PostgreSQL manual 34.16); its line fits every server, because
    there libpq calls a socket's folder by another name than we do."""
    handle, name = tempfile.mkstemp(prefix=".login-", dir=folder)  # mkstemp makes it 0600
    try:
        password = endpoint.password.replace("\\", "\\\\").replace(":", "\\:")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"*:*:*:*:{password}\n")
        yield Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def connection_string(endpoint: Endpoint, dbname: str, passfile: Path) -> str:
    """libpq's connection string without the password, for a command line."""
    words = {
        "host": endpoint.host,
        "port": str(endpoint.port),
        "user": endpoint.user,
        "dbname": dbname,
        "sslmode": endpoint.sslmode,
        "connect_timeout": str(endpoint.connect_timeout),
        "application_name": application_name(endpoint, "schema"),
        "passfile": str(passfile),
        "sslrootcert": endpoint.sslrootcert,
        "sslcert": endpoint.sslcert,
        "sslkey": endpoint.sslkey,
    }
    return " ".join(f"{k}={quote_conninfo(v)}" for k, v in words.items() if v)


def run_tool(command: t.Sequence[str], doing: str, server: str, stop: threading.Event) -> str:
    """Run ``command`` and give what it printed.

    :raises CopyError: with the tool's own words if it ends with another status than 0.
    :raises Stopped: within a moment after ``stop`` was set; the tool is ended first.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment())
        try:
            while process.poll() is None:
                if stop.wait(POLL if process.returncode is None else 0):
                    raise Stopped
        finally:
            _end(process)
        err.seek(0)
        words = " ".join(err.read().decode(errors="replace").split())
        if process.returncode:
            tool = os.path.basename(command[0])
            raise CopyError(
                f"Could not {doing} on {server}: {tool} ended with status {process.returncode}: {words[-1500:]}",
                code="PGM3004",
                server=server,
            )
        out.seek(0)
        return out.read().decode("utf-8", errors="surrogateescape")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        deadline = time.monotonic() + 3
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
