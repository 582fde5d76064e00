# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The one tree of errors that the engine raises, and what each of them must be able to tell.

An error says what was tried, on which server and object, what the server answered and what to do about it. The adapter for Ansible
turns it into one ``fail_json``; the service writes it into the migration's record. Neither adds words of its own.

Codes are ``PGM`` and four digits, in blocks: 10 specification and names, 11 connections and rights, 12 slot and publication, 2x findings
of the validation, 3x base copy, 4x change stream, 5x cutover, 6x verification, 7x globals, 8x service and engine, 90 unforeseen.
"""

from __future__ import annotations

import typing as t


class MigrationError(Exception):
    """Something that can be foreseen went wrong.

    :param message: one sentence: what was tried, on which server and object, and the server's own answer.
    :param code: ``PGM####``, stable for users and documentation.
    :param hint: the one thing to do next, or an empty string.
    :param server: ``source host:port/database as user`` where a server is concerned.
    :param sqlstate: five characters as PostgreSQL reports them (Appendix A of its manual), or an empty string.
    :param details: further facts for machines; never a secret.
    """

    default_code = "PGM9000"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        hint: str = "",
        server: str = "",
        sqlstate: str = "",
        details: t.Mapping[str, t.Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.server = server
        self.sqlstate = sqlstate
        self.details: dict[str, t.Any] = dict(details or {})

    def to_dict(self) -> dict[str, t.Any]:
        """The error as plain data, for state files, the control socket and module results."""
        return {
            "message": self.message,
            "code": self.code,
            "hint": self.hint,
            "server": self.server,
            "sqlstate": self.sqlstate,
            "details": self.details,
        }

    @classmethod
    def from_dict(cls, data: t.Mapping[str, t.Any]) -> MigrationError:
        """The error that another process reported as :meth:`to_dict`."""
        return cls(
            str(data.get("message", "unknown error")),
            code=str(data.get("code", "")),
            hint=str(data.get("hint", "")),
            server=str(data.get("server", "")),
            sqlstate=str(data.get("sqlstate", "")),
            details=data.get("details") or {},
        )


class SpecificationError(MigrationError):
    """The description of the migration is wrong; nothing was touched."""

    default_code = "PGM1001"


class ConnectionFailed(MigrationError):
    """A server could not be reached or refused the login. ``details['reason']`` is one of
    ``dns tcp tls hba authentication database rights too_many starting other`` (R26)."""

    default_code = "PGM1101"


class PermissionMissing(MigrationError):
    """The migration user lacks a right; the hint is the statement that grants it."""

    default_code = "PGM1103"


class Conflict(MigrationError):
    """What exists already contradicts what was asked: another specification, a database, an active migration."""

    default_code = "PGM1005"


class IllegalTransition(MigrationError):
    """A state was asked for that cannot follow the present one (R84, R85)."""

    default_code = "PGM1006"


class CopyError(MigrationError):
    """The base copy cannot go on."""

    default_code = "PGM3000"


class StreamError(MigrationError):
    """The change stream cannot go on; nothing past the failing change was acknowledged."""

    default_code = "PGM4000"


class CutoverAborted(MigrationError):
    """The cutover did not happen; the source is writable and the stream goes on."""

    default_code = "PGM5000"


class VerificationFailed(MigrationError):
    """Source and target differ; ``details['differences']`` names tables and keys."""

    default_code = "PGM6000"


class ServiceError(MigrationError):
    """The migration service could not be started, reached or stopped."""

    default_code = "PGM8000"


class EngineMismatch(ServiceError):
    """Caller and service run different engines; the runtime role has to be run."""

    default_code = "PGM8001"
