# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What of the schema a selection of schemas and tables leaves behind, read from the source's dependencies.

pg_dump leaves out the tables and schemas themselves, with their indexes, constraints, triggers, comments and grants. What remains are
objects elsewhere that need one of them. A foreign key, view, function, trigger, rule or policy that does is left out too and named; a
table, default, type or other thing that the chosen tables cannot do without is refused.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import CopyError
from ..postgres.catalog import USER_SCHEMAS, Table
from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident
from ..postgres.selection import Selection, WrapperExtension, chosen_tables, read_left_out, read_wrapper_extensions
from . import leftout
from .archive import Entry

LEFT_OUT = {
    "pg_proc": "function",
    "pg_trigger": "trigger",
    "pg_policy": "policy",
    "pg_rewrite": "rule",
    "pg_cast": "cast",
    "pg_operator": "operator",
    "pg_aggregate": "aggregate",
    "pg_statistic_ext": "statistics",
}
"""Catalogs whose objects may go together with what they need."""

BY_PG_DUMP = ("pg_namespace", "pg_type", "pg_default_acl", "pg_publication_rel", "pg_publication_namespace")
"""What pg_dump leaves out by itself, or the target gets in no case."""

PG_EXTENSION = 3079
"""OID of the catalog, the same in every version (pg_extension.h)."""

_DEPENDENTS = """
    WITH RECURSIVE gone(classid, objid) AS (
        SELECT 'pg_class'::regclass::oid, unnest(%(tables)s::bigint[])::oid
        UNION
        SELECT 'pg_namespace'::regclass::oid, oid FROM pg_namespace WHERE nspname = ANY(%(schemas)s)
        UNION
        SELECT n.classid, n.objid FROM gone g CROSS JOIN LATERAL (
            SELECT d.classid, d.objid FROM pg_depend d
             WHERE d.refclassid = g.classid AND d.refobjid = g.objid AND d.deptype <> 'e' AND d.classid <> 'pg_extension'::regclass
            UNION ALL  -- a rule ON SELECT is its view
            SELECT 'pg_class'::regclass::oid, r.ev_class FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class
             WHERE g.classid = 'pg_rewrite'::regclass AND r.oid = g.objid AND v.relkind IN ('v', 'm')
            UNION ALL  -- a default is its table
            SELECT 'pg_class'::regclass::oid, a.adrelid FROM pg_attrdef a WHERE g.classid = 'pg_attrdef'::regclass AND a.oid = g.objid
        ) n)
    SELECT g.classid::bigint, g.objid::bigint, g.classid::regclass::text,
           CASE WHEN g.classid = 'pg_class'::regclass THEN (SELECT relkind::text FROM pg_class WHERE oid = g.objid)
                WHEN g.classid = 'pg_constraint'::regclass THEN (SELECT contype::text FROM pg_constraint WHERE oid = g.objid)
                WHEN g.classid = 'pg_trigger'::regclass THEN (
                     SELECT CASE WHEN tgisinternal THEN 'internal' END FROM pg_trigger WHERE oid = g.objid)
                ELSE '' END,
           pg_describe_object(g.classid, g.objid, 0), coalesce(i.schema, ''),
           CASE WHEN g.classid = 'pg_class'::regclass THEN coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = g.objid), g.objid)
                WHEN g.classid = 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint WHERE oid = g.objid)
                WHEN g.classid = 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = g.objid)
                WHEN g.classid = 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = g.objid)
                WHEN g.classid = 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = g.objid)
                ELSE 0 END::bigint
      FROM gone g CROSS JOIN LATERAL pg_identify_object(g.classid, g.objid, 0) i"""


@dataclasses.dataclass(frozen=True)
class Selected:
    """The chosen tables, pg_dump's arguments that leave the others out, what else goes (catalog and OID, and its
    description), what of foreign servers is left out as asked, and the extensions that go with them."""

    tables: tuple[Table, ...]
    arguments: tuple[str, ...]
    dropped: dict[tuple[int, int], str]
    foreign: tuple[str, ...] = ()
    wrappers: tuple[WrapperExtension, ...] = ()

    def keeps(self, entry: Entry, names: t.Collection[str]) -> bool:
        """Does the target get ``entry``? ``names``: of :meth:`names_dropped`, for comments and grants, which have no OID."""
        if entry.kind in ("COMMENT", "ACL", "SECURITY LABEL"):
            about = entry.rest.rsplit(" ", 1)[0]
            return not any(about == name or (name.endswith(".") and about.startswith(name)) for name in names)
        if entry.kind == "USER MAPPING" and self.foreign:  # pg_dump tells no OID of them
            return False
        return (entry.catalog, entry.oid) not in self.dropped

    def names_dropped(self, entries: t.Iterable[Entry]) -> set[str]:
        """How comments and grants speak of the entries that are dropped: ``schema KIND name``, ``schema KIND name ON table``, and
        ``schema COLUMN name.`` as the beginning of a view's columns."""
        found = {f"- FOREIGN DATA WRAPPER {one.wrapper}" for one in self.wrappers}  # granted on, though an extension brings it
        for entry in entries:
            if (entry.catalog, entry.oid) not in self.dropped:
                continue
            schema, dummy, name = entry.rest.rsplit(" ", 1)[0].partition(" ")
            found |= {f"{schema} {entry.kind} {name}", f"{schema} COLUMN {name}."}
            if entry.kind.endswith("VIEW"):  # grants call every relation a table
                found.add(f"{schema} TABLE {name}")
            elif entry.kind == "SERVER":
                found.add(f"{schema} FOREIGN SERVER {name}")
            table, dummy, part = name.partition(" ")
            found.add(f"{schema} {entry.kind.removeprefix('FK ')} {part} ON {table}")
        return found

    def notes(self) -> list[str]:
        """What was left out because it needs what was left out, for people."""
        asked = [leftout.FOREIGN.say(text=text) for text in self.foreign]
        return asked + [leftout.NEEDS.say(text=text) for text in sorted(set(self.dropped.values()) - {""})]


def select(conn: psycopg.Connection[t.Any], selection: Selection, tables: t.Sequence[Table]) -> Selected:
    """Apply ``selection`` to the source's ``tables``.

    :raises CopyError: PGM3015, naming chosen objects that need what is not chosen; PGM3016 if nothing is chosen.
    """
    if selection.everything:
        return Selected(tuple(tables), (), {})
    chosen = chosen_tables(conn, selection, tables)
    if not chosen and tables:
        raise CopyError("copy.schemas, copy.tables and copy.exclude choose no table at all.", code="PGM3016", hint="Correct the patterns.")
    left = read_left_out(conn, selection, chosen)
    schemas, others = left.schemas, left.tables
    ours = {table.oid: table.label for table in chosen}
    dropped = _dependents(conn, [oid for oid, dummy, dummy2 in others], schemas, {oid for oid, dummy, dummy2 in others}, ours)
    foreign = {} if selection.foreign else _foreign(conn)
    wrappers = () if selection.foreign else tuple(read_wrapper_extensions(conn))
    foreign.update({(PG_EXTENSION, one.oid): f"extension {one.name}" for one in wrappers})
    dropped.update(dict.fromkeys((key for key in foreign if key[0]), ""))
    arguments = [f"--exclude-schema={quote_ident(name)}" for name in schemas]
    arguments += [f"--exclude-table={quote_ident(s)}.{quote_ident(n)}" for dummy, s, n in others if s not in schemas]
    return Selected(tuple(chosen), tuple(arguments), dropped, tuple(foreign.values()), wrappers)


def _foreign(conn: psycopg.Connection[t.Any]) -> dict[tuple[int, int], str]:
    """Foreign tables (which pg_dump leaves out) and user mappings, both with catalog 0; servers and wrappers that no extension brings."""
    rows = conn.execute(
        f"""SELECT 0::bigint, c.oid::bigint, pg_describe_object('pg_class'::regclass, c.oid, 0)
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'f' AND {USER_SCHEMAS}
            UNION ALL SELECT 'pg_foreign_server'::regclass::bigint, oid::bigint, pg_describe_object('pg_foreign_server'::regclass, oid, 0)
              FROM pg_foreign_server
            UNION ALL SELECT 0, umid::bigint, pg_describe_object('pg_user_mapping'::regclass, umid, 0)
              FROM pg_user_mappings
            UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass::bigint, w.oid::bigint,
                   pg_describe_object('pg_foreign_data_wrapper'::regclass, w.oid, 0)
              FROM pg_foreign_data_wrapper w WHERE NOT EXISTS (SELECT FROM pg_depend d
                   WHERE d.classid = 'pg_foreign_data_wrapper'::regclass AND d.objid = w.oid AND d.deptype = 'e')
             ORDER BY 1, 3""".encode()
    )
    return {(int(catalog), int(oid)): text for catalog, oid, text in rows}


def _dependents(
    conn: psycopg.Connection[t.Any], tables: t.Sequence[int], schemas: t.Sequence[str], gone: t.Collection[int], ours: t.Mapping[int, str]
) -> dict[tuple[int, int], str]:
    dropped: dict[tuple[int, int], str] = {}
    refused: list[str] = []
    rows = conn.execute(_DEPENDENTS, {"tables": list(tables), "schemas": list(schemas)}).fetchall()
    lost = {oid for dummy, oid, name, kind, dummy2, dummy3, dummy4 in rows if name == "pg_class" and kind in ("v", "m")}
    for classid, oid, catalog, kind, text, schema, relation in rows:
        if schema in schemas or relation in gone or catalog in BY_PG_DUMP or kind == "internal":
            continue
        if relation in lost and catalog == "pg_class" and kind in ("i", "I"):
            dropped[classid, oid] = ""  # goes with its view
        elif relation in ours and catalog == "pg_class":
            refused.append(ours[relation])
        elif catalog == "pg_constraint" and kind == "f" or catalog in LEFT_OUT or (catalog == "pg_class" and kind in ("v", "m")):
            if not (catalog == "pg_rewrite" and relation in lost):
                dropped[classid, oid] = text
        elif relation in ours:
            refused.append(text)
    if refused:
        raise CopyError(
            f"Chosen tables need what is not migrated: {', '.join(sorted(set(refused))[:10])}.",
            code="PGM3015",
            hint="Choose what they need too (copy.schemas, copy.tables), or exclude these tables.",
            details={"objects": sorted(set(refused))},
        )
    return dropped
