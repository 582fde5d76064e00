# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a base copy leaves out or adapts, and what people are told of it: the one list, of which docs/leftout.md is made."""

from __future__ import annotations

import typing as t


class LeftOut(t.NamedTuple):
    """``what`` is left out or adapted, and ``why``; ``when`` is empty where it always is. ``note`` is what is told, with names in braces;
    empty where nobody misses it. ``kinds`` are the kinds of archive entries (pg_restore --list) that it stands for."""

    what: str
    why: str
    when: str
    note: str
    kinds: tuple[str, ...] = ()

    def say(self, **names: t.Any) -> str:
        """The note with its names."""
        return self.note.format(**names)


REPLICATION = LeftOut(
    "Publications, with their tables and schemas",
    "They belong to the source's replication, which is not that of the target.",
    "",
    "{kind} {name} was left out: replication is set up anew on the target.",
    ("PUBLICATION", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA", "SUBSCRIPTION TABLE"),
)
SUBSCRIPTION = LeftOut(
    "Subscriptions",
    "A second subscriber would take the first one's changes, and its connection string may hold a password.",
    "",
    "Subscription {name} was left out: replication is set up anew on the target.",
    ("SUBSCRIPTION",),
)
EVENT_TRIGGER = LeftOut(
    "Event triggers, with their comments",
    "Only a superuser may create them.",
    "the target's login is no superuser, as on every provider's server",
    "Event trigger {name} was left out: only a superuser may create it.",
    ("EVENT TRIGGER",),
)
EXTENSION_COMMENT = LeftOut(
    "Comments on extensions",
    "Only the extension's owner may set them, and `CREATE EXTENSION` brings its own.",
    "",
    "The comment on extension {name} was left out: the extension brings its own.",
)
EXTENSION_VERSION = LeftOut(
    "Versions of extensions",
    "An extension is created in the target's default version; one that the target does not have ends the copy (PGM3006).",
    "the versions differ",
    "Extension {name}: version {here} on the source, {there} on the target.",
)
TABLESPACE = LeftOut(
    "Tablespaces",
    "They take a superuser and a folder of the target. What lies in one goes to the target's default tablespace.",
    "`globals.tablespaces` does not map it",
    "Tablespace {name} was left out: {relations} are in the target's default tablespace.",
)
OWNER = LeftOut(
    "Owners",
    "Only a member of a role may give it an object. Superusers and the provider's own roles have no members of ours; with another role the"
    " copy ends (PGM3005).",
    "the owner is a superuser or a provider's role, or is not on the target",
    "Objects of the role {name} belong to {user} on the target, which cannot give objects to {name}.",
)
GRANT = LeftOut(
    "Grants",
    "A grant needs its grantee.",
    "the grantee is not on the target: superusers, the provider's roles, the migration's own login",
    "Grants to the role {name} were left out: the target does not have it.",
)
LARGE_OBJECT_OWNER = LeftOut(
    "Owners of large objects",
    "As with other objects.",
    "the target's login is no member of the owner",
    "Large objects of the role {name} belong to {user} on the target, which cannot give objects to {name}.",
)
LARGE_OBJECT_GRANT = LeftOut(
    "Grants on large objects",
    "As with other objects.",
    "the grantee is not on the target",
    "Grants on large objects to the role {name} were left out: the target does not have it.",
)
LARGE_OBJECT_LABEL = LeftOut(
    "Security labels of large objects", "They are not copied with the objects; set them on the target where you use such.", "", ""
)
UNLOGGED = LeftOut(
    "Rows of unlogged tables",
    "It was asked for.",
    "`copy.unlogged_tables: empty`",
    "Unlogged tables get no rows, as asked: {tables}.",
)
FOREIGN = LeftOut(
    "Foreign tables, servers, wrappers, user mappings, and the extensions that bring wrappers",
    "It was asked for. Otherwise their definitions are kept, and no rows, which are elsewhere.",
    "`copy.foreign_tables: exclude`",
    "Left out, as copy.foreign_tables says: {text}.",
)
NEEDS = LeftOut(
    "Views, functions, triggers, rules, policies, casts, operators, aggregates, statistics and foreign keys that need what is not chosen",
    "They cannot be created without it. A chosen table that needs it ends the copy (PGM3015).",
    "`copy.schemas`, `copy.tables`, `copy.exclude` choose a part",
    "Left out, for it needs what is not migrated: {text}.",
)
MATVIEW = LeftOut(
    "Rows of materialized views",
    "They are not copied but made anew by `REFRESH`, after the copy and at the cutover. One that fails stays empty, and is told.",
    "",
    "A materialized view could not be refreshed: {words}. The cutover does not refresh it either.",
    ("MATERIALIZED VIEW DATA",),
)
DATA = LeftOut(
    "Rows, values of sequences, large objects and statistics in `pg_dump`'s archive",
    "They are brought by other ways: COPY, `setval`, large objects in batches, `ANALYZE`. An online copy sets sequences ahead, and the"
    " cutover exactly.",
    "",
    "",
    ("TABLE DATA", "SEQUENCE SET", "BLOBS", "BLOB METADATA", "BLOB", "LARGE OBJECT", "STATISTICS DATA"),
)
DATABASE = LeftOut(
    "The database itself, its settings and encoding in `pg_dump`'s archive",
    "The database is made before, like the source's; its settings, comment and privileges come with the globals.",
    "",
    "",
    ("ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE PROPERTIES", "DATABASE"),
)
OURS = LeftOut("The schema `pgm_migration` and publications of ours", "They are the migration's own, and go with it.", "", "")
ATTVER = LeftOut("The column option `pg_attver`", "Servers from 15.20 on note it there for themselves; no other server knows it.", "", "")

EVERYTHING: tuple[LeftOut, ...] = tuple(value for value in list(globals().values()) if isinstance(value, LeftOut))
"""All of them, in the order of this file."""
