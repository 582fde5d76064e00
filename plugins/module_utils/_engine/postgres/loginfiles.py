# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""libpq's password file and connection service file, read by ourselves, once, before anything connects.

Three kinds of connections are ours (libpq's, asyncpg's, those of pg_dump and pg_restore), and only libpq knows service files. So what the
files say is put in place of their names as soon as a task begins, on the host that runs it; from there on an endpoint has an address, a
user and a password like any other. Formats and precedence are libpq's (manual 34.16 and 34.17): what the inventory says itself comes first,
then the service, then the password file.
"""

from __future__ import annotations

import os
import re
import stat
import typing as t
from pathlib import Path

from ..errors import SpecificationError

NAMES = ("passfile", "service", "service_file")
"""What an endpoint may say of files."""

SERVICE_FILES = ("~/.pg_service.conf", "/etc/postgresql-common/pg_service.conf", "/etc/sysconfig/pgsql/pg_service.conf")
"""Where a service is looked for when no file is named: the user's own, then the system's (Debian's and PostgreSQL's packages)."""

TAKEN = ("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "passfile")
"""Keywords of a service that mean the same in an endpoint."""

OURS = ("application_name", "fallback_application_name", "client_encoding", "keepalives")
"""Keywords that are passed over, ``keepalives`` with all that begin so: each session of ours has its own."""

SOCKET_FOLDERS = ("/tmp", "/var/run/postgresql", "/run/postgresql")  # nosec: libpq's default folders, which a password file calls localhost

DEFAULT_PORT, DEFAULT_DATABASE = "5432", "postgres"


def resolve(side: str, endpoint: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """``endpoint``, keys as in the inventory, with what its service and its password file say; :data:`NAMES` are not in it any more.

    :param side: ``source`` or ``target``, for messages.
    :raises SpecificationError: a file cannot be read, may be read by others, or does not say what it is named for.
    """
    given = {key: value for key, value in endpoint.items() if value is not None}
    if given.get("service_file") and not given.get("service"):
        raise SpecificationError(f"pg_migration.{side}.service_file is given without service.", hint="Name the section of the file.")
    if given.get("service"):
        given = {**_service(side, str(given["service"]), str(given.get("service_file", ""))), **given}
    if "," in str(given.get("host", "")):
        raise SpecificationError(f"pg_migration.{side}.host names several servers: {given['host']}.", hint="Name the primary.")
    if given.get("passfile") and not given.get("password") and given.get("host") and given.get("user"):
        given["password"] = _password(side, Path(str(given["passfile"])), given)
    return {key: value for key, value in given.items() if key not in NAMES}


def _service(side: str, name: str, named: str) -> dict[str, str]:
    """What the first section ``name`` says, in the file ``named`` or else in the first of :data:`SERVICE_FILES` that has it."""
    paths = [Path(named)] if named else [path for path in (Path(text).expanduser() for text in SERVICE_FILES) if path.exists()]
    for path in paths:
        text, mode = _read(side, "service file", path)
        found = _section(side, name, path, text)
        if found is None:
            continue
        if found.get("password"):
            _refuse_open(side, "service file", path, mode)
        return found
    looked = ", ".join(map(str, paths)) or ", ".join(SERVICE_FILES)
    raise SpecificationError(
        f"The service {name!r} of the {side} is not in {looked} of the host that runs the migration.",
        hint=f"Write a section [{name}] there, or name another file in pg_migration.{side}.service_file.",
    )


def _section(side: str, name: str, path: Path, text: str) -> dict[str, str] | None:
    """The keywords of section ``name``; as in libpq the first of two equal ones counts."""
    found: dict[str, str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                return found
            found = {} if line == f"[{name}]" else None
        elif found is not None:
            key, equals, value = line.partition("=")
            if key.startswith(OURS) and equals:
                continue
            if key not in TAKEN or not equals:
                shown = key if equals else "a line without ="
                raise SpecificationError(
                    f"The service {name!r} of the {side} has {shown} in line {number} of {path}, which a migration cannot use.",
                    hint=f"Keywords that it takes: {', '.join(TAKEN)}.",
                )
            found.setdefault(key, value)
    return found


def _password(side: str, path: Path, endpoint: t.Mapping[str, t.Any]) -> str:
    """The password of the first line of a password file that fits ``endpoint``."""
    text, mode = _read(side, "password file", path)
    _refuse_open(side, "password file", path, mode)
    host = str(endpoint["host"])
    wanted = (
        "localhost" if host in SOCKET_FOLDERS else host,
        str(endpoint.get("port") or DEFAULT_PORT),
        str(endpoint.get("dbname") or DEFAULT_DATABASE),
        str(endpoint["user"]),
    )
    for line in text.split("\n"):
        line = line.rstrip("\r")
        if not line or line.startswith("#"):
            continue
        fields, rest = _fields(line)
        if rest is not None and all(field == "*" or _plain(field) == value for field, value in zip(fields, wanted, strict=True)):
            return _plain(rest)
    raise SpecificationError(
        f"No line of the password file {path} of the {side} fits {':'.join(wanted)}.",
        hint="A line is host:port:database:user:password; each of the first four may be *.",
    )


def _fields(line: str) -> tuple[list[str], str | None]:
    """The first four fields of a line, still escaped, and its rest; None where it has no five."""
    parts = re.match(r"((?:\\.|[^:\\])*):((?:\\.|[^:\\])*):((?:\\.|[^:\\])*):((?:\\.|[^:\\])*):(.*)", line)
    return ([str(part) for part in parts.groups()[:4]], parts.group(5)) if parts else ([], None)


def _plain(field: str) -> str:
    """Without the backslashes that escape."""
    return re.sub(r"\\(.)", r"\1", field)


def _read(side: str, kind: str, path: Path) -> tuple[str, int]:
    """Text and mode of a file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise SpecificationError(f"The {kind} {path} of the {side} is no plain file.")
            return file.read(), stat.S_IMODE(state.st_mode)
    except OSError as exc:
        raise SpecificationError(
            f"The {kind} {path} of the {side} cannot be read: {exc.strerror}.",
            hint="It has to be on the host that runs the migration, and the user whom the task runs as has to read it.",
        ) from exc
    except UnicodeDecodeError as exc:
        raise SpecificationError(f"The {kind} {path} of the {side} is not in UTF-8.") from exc


def _refuse_open(side: str, kind: str, path: Path, mode: int) -> None:
    """A password that others may read is not used. libpq ignores such a file, which looks like a wrong password."""
    if mode & 0o077:
        raise SpecificationError(
            f"The {kind} {path} of the {side} holds a password and is open to others (mode {mode:04o}): it is not used.",
            hint=f"chmod 0600 {path}",
        )
