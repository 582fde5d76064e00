# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The archive that pg_dump wrote: its table of contents, what of it the target gets, and the SQL of the chosen entries.

pg_restore turns entries into SQL text; we run that text ourselves, so that it is one transaction with the ledger's mark, repeatable, and
without what the target's administrator may not do. An error names the entry that it happened in.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
import threading
import typing as t
from pathlib import Path

from ..postgres.identifiers import PREFIX, SCHEMA, quote_ident
from . import leftout
from .tools import Tools, run_tool

POST_DATA = (
    "INDEX ATTACH", "INDEX", "CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT", "TRIGGER", "RULE", "POLICY", "ROW SECURITY",
    "EVENT TRIGGER",
    "PUBLICATION TABLES IN SCHEMA", "PUBLICATION TABLE", "PUBLICATION", "SUBSCRIPTION TABLE", "SUBSCRIPTION", "STATISTICS", "DEFAULT ACL",
    "MATERIALIZED VIEW DATA",
)  # fmt: skip
"""Kinds of entries that come after the data (``SECTION_POST_DATA`` in pg_dump.c). pg_dump sorts all of that section behind the rest."""

REPLICATION = (*leftout.REPLICATION.kinds, *leftout.SUBSCRIPTION.kinds)
DATA = (*leftout.DATA.kinds, *leftout.MATVIEW.kinds)
NOTHING = leftout.DATABASE.kinds
FOREIGN = ("FOREIGN TABLE", "FOREIGN DATA WRAPPER", "USER MAPPING", "SERVER")
_KINDS = sorted(
    {*POST_DATA, *REPLICATION, *DATA, *NOTHING, "COMMENT", "ACL", "SCHEMA", "EXTENSION", "SECURITY LABEL", "MATERIALIZED VIEW", *FOREIGN},
    key=len,
    reverse=True,
)
_LINE = re.compile(r"(\d+); (\d+) (\d+) (.+)")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the table of contents. ``catalog`` and ``oid`` are the source's (0 for comments and
    grants); ``rest`` is schema, name and owner, the last of which may be empty.
    """

    line: str
    catalog: int
    oid: int
    kind: str
    rest: str
    post: bool


def parse_contents(text: str) -> list[Entry]:
    """The entries of ``pg_restore --list``."""
    entries: list[Entry] = []
    post = False
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            continue
        tail = match[4]
        kind = next((k for k in _KINDS if tail == k or tail.startswith(k + " ")), tail.split(" ", 1)[0])
        post = post or kind in POST_DATA
        entries.append(Entry(line, int(match[2]), int(match[3]), kind, tail[len(kind) :].lstrip(), post))
    return entries


def wanted(entry: Entry, *, event_triggers: bool) -> tuple[bool, str]:
    """Does the target get ``entry``? If not, a note for people, or an empty string where nobody misses it."""
    subject = entry.rest.rsplit(" ", 1)[0].removeprefix("- ")
    if entry.kind in DATA or entry.kind in NOTHING:
        return False, ""
    if entry.rest.split(" ", 1)[0] == SCHEMA or (entry.kind == "SCHEMA" and entry.rest.startswith(f"- {SCHEMA} ")):
        return False, ""
    if entry.kind in REPLICATION:
        ours = f" {PREFIX}" in f" {entry.rest}"
        return False, "" if ours else leftout.REPLICATION.say(kind=entry.kind.capitalize(), name=subject)
    if entry.kind == "EVENT TRIGGER" and not event_triggers:
        return False, leftout.EVENT_TRIGGER.say(name=subject)
    if entry.kind == "COMMENT":
        about = entry.rest.removeprefix("- ")
        if about.startswith("EXTENSION "):
            return False, leftout.EXTENSION_COMMENT.say(name=subject.removeprefix("EXTENSION "))
        if about.startswith(("PUBLICATION ", "SUBSCRIPTION ")) or (about.startswith("EVENT TRIGGER ") and not event_triggers):
            return False, ""
    return True, ""


@dataclasses.dataclass(frozen=True)
class Statement:
    """The SQL of one entry; ``title`` names it (``TABLE public.customer``)."""

    kind: str
    title: str
    sql: bytes


_HEAD = re.compile(rb"(?:^|\n)--\n-- Name: (?P<name>.*); Type: (?P<type>[A-Z ]+); Schema: (?P<schema>.*); Owner: (?P<owner>.*)\n--\n")


def split_script(script: bytes) -> list[Statement]:
    """The entries of the SQL that pg_restore wrote; what precedes the first (session settings) and psql's own lines are left out."""
    found = list(_HEAD.finditer(script))
    statements = []
    for match, following in zip(found, [*found[1:], None], strict=True):
        body = script[match.end() : following.start() if following else len(script)]
        if following is None:
            body = re.sub(rb"\n--\n-- PostgreSQL database dump complete\n--\n.*\Z", b"\n", body, flags=re.DOTALL)
            body = re.sub(rb"\n\\unrestrict [A-Za-z0-9]+\s*\Z", b"\n", body)
        schema = match["schema"].decode(errors="replace")
        name = match["name"].decode(errors="replace")
        kind = match["type"].decode()
        statements.append(Statement(kind, f"{kind} {name}" if schema == "-" else f"{kind} {schema}.{name}", body))
    return statements


class Archive:
    """The file ``path`` in pg_dump's custom format."""

    def __init__(self, path: Path, tools: Tools, stop: threading.Event) -> None:
        self.path = path
        self._tools = tools
        self._stop = stop

    def contents(self) -> list[Entry]:
        """The table of contents."""
        return parse_contents(
            run_tool([self._tools.path("pg_restore"), "--list", str(self.path)], "read the dump", "the runtime host", self._stop)
        )

    def sql(self, entries: t.Sequence[Entry]) -> list[Statement]:
        """The SQL of ``entries``, grants last."""
        if not entries:
            return []
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, prefix=".list-", encoding="utf-8", errors="surrogateescape") as listing:
            listing.write("\n".join(e.line for e in entries) + "\n")
            listing.flush()
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".sql-") as script:
                command = [
                    self._tools.path("pg_restore"),
                    "--no-tablespaces",
                    f"--use-list={listing.name}",
                    f"--file={script.name}",
                    str(self.path),
                ]
                run_tool(command, "read the dump", "the runtime host", self._stop)
                return split_script(Path(script.name).read_bytes())


def _names(roles: t.Iterable[str]) -> bytes:
    """Pattern for any of ``roles``, quoted or bare."""
    forms = {form for role in roles for form in (role, quote_ident(role))}
    return b"(?:" + b"|".join(sorted((re.escape(f.encode()) for f in forms), reverse=True)) + b")"


def adapt(statement: Statement, *, unowned: t.Collection[str], absent: t.Collection[str]) -> Statement:
    """``statement`` as a target whose administrator is no superuser takes it.

    :param unowned: roles that objects cannot be given to: these stay with the administrator.
    :param absent: roles that the target does not have and does not get: grants to them are left out.
    """
    sql = statement.sql
    if statement.kind == "SCHEMA":
        sql = re.sub(rb"^CREATE SCHEMA public;$", b"", sql, flags=re.MULTILINE)
    if unowned:
        roles = _names(unowned)
        sql = re.sub(rb"^ALTER [^\n]* OWNER TO " + roles + rb";$", b"", sql, flags=re.MULTILINE)
        if statement.kind == "DEFAULT ACL":
            sql = re.sub(rb"^ALTER DEFAULT PRIVILEGES FOR ROLE " + roles + rb" [^\n]*;$", b"", sql, flags=re.MULTILINE)
    if statement.kind in ("ACL", "DEFAULT ACL"):
        sql = re.sub(rb"^SET SESSION AUTHORIZATION ([^\n]*);$", rb"SET LOCAL ROLE \1;", sql, flags=re.MULTILINE)
        sql = re.sub(rb"^RESET SESSION AUTHORIZATION;$", b"RESET ROLE;", sql, flags=re.MULTILINE)
        if absent:
            sql = re.sub(rb"^[^\n]* (?:TO|FROM) " + _names(absent) + rb"(?: WITH GRANT OPTION)?;$", b"", sql, flags=re.MULTILINE)
    # servers from 15.20 on may keep a note of their own among a column's options; no other one knows it
    sql = re.sub(rb"^ALTER TABLE ONLY [^\n]* SET \(pg_attver=[^,)\n]*\);$", b"", sql, flags=re.MULTILINE)
    return dataclasses.replace(statement, sql=sql)
