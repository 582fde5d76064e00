# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Are the definitions of both sides the same? One set-based query per class of object, compared by name.

What each query returns is ``(kind, object, definition)``. Texts that PostgreSQL deparses (views, expressions) are written differently by
different major versions; where the majors differ these are compared by what does not depend on that (:data:`DEPARSED`).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..postgres.catalog import USER_SCHEMAS
from ..postgres.drivers import psycopg
from .objects import compare_rights, made_by_users, object_queries, read_rights

DEPARSED = frozenset({"view", "rule", "policy", "trigger"})
"""Kinds compared by existence alone where the majors differ."""


@dataclasses.dataclass(frozen=True)
class SchemaDifference:
    """One definition that is not the same; ``source`` or ``target`` is None where the object does not exist."""

    kind: str
    object: str
    source: str | None
    target: str | None

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def compare_schemas(source: psycopg.Connection[t.Any], target: psycopg.Connection[t.Any]) -> list[SchemaDifference]:
    """The definitions that differ, by kind and name. The target's schema of our own is left out."""
    ours, theirs = _read(source), _read(target)
    versions = (source.info.server_version // 10000, target.info.server_version // 10000)
    found = []
    for kind, name in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get((kind, name)), theirs.get((kind, name))
        if left == right or (left is not None and right is not None and kind in DEPARSED and versions[0] != versions[1]):
            continue
        found.append(SchemaDifference(kind, name, left, right))
    return found + [SchemaDifference(*one) for one in compare_rights(read_rights(source), read_rights(target))]


def _read(conn: psycopg.Connection[t.Any]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    version = conn.info.server_version
    for query in [*_queries(version), *object_queries(version)]:
        for kind, name, definition in conn.execute(query):
            found[kind, name] = definition or ""
    return found


def _free(catalog: str, oid: str) -> str:
    kinds = "'e', 'i'" if catalog == "pg_proc" else "'e'"
    return made_by_users(f"'{catalog}'::regclass", oid, kinds)


def _queries(version: int) -> list[str]:
    name = "format('%I.%I', n.nspname, c.relname)"
    relations = f"FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMAS} AND {_free('pg_class', 'c.oid')}"
    generated = "CASE a.attgenerated WHEN '' THEN ' default ' ELSE ' generated ' END" if version >= 120000 else "' default '"
    identity = "CASE a.attidentity WHEN '' THEN '' ELSE ' identity ' || a.attidentity::text END" if version >= 100000 else "''"
    bound = "CASE WHEN c.relispartition THEN ' partition ' || pg_get_expr(c.relpartbound, c.oid) ELSE '' END"
    partition = bound if version >= 100000 else "''"
    function_kind = "p.prokind::text" if version >= 110000 else "CASE WHEN p.proisagg THEN 'a' WHEN p.proiswindow THEN 'w' ELSE 'f' END"
    body = "coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)" if version >= 140000 else "p.prosrc"
    queries = [
        f"SELECT 'schema', format('%I', n.nspname), '' FROM pg_namespace n WHERE {USER_SCHEMAS} AND {_free('pg_namespace', 'n.oid')}",
        "SELECT 'extension', format('%I', extname), '' FROM pg_extension",
        f"""SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' WHEN 'm' THEN 'materialized view'
                   WHEN 'c' THEN 'type' ELSE 'table' END, {name},
                   c.relkind::text || ' ' || c.relpersistence::text || CASE WHEN c.relrowsecurity THEN ' row security' ELSE '' END
                   || CASE WHEN c.relforcerowsecurity THEN ' forced' ELSE '' END || {partition}
                   || CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN ' not populated' ELSE '' END
              {relations} AND c.relkind IN ('r', 'p', 'f', 'm', 'S', 'c') AND c.relpersistence <> 't'""",
        f"""SELECT 'column', {name} || format('.%I', a.attname), format_type(a.atttypid, a.atttypmod)
                   || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END || {identity}
                   || coalesce({generated} || pg_get_expr(ad.adbin, ad.adrelid), '')
                   || CASE WHEN a.attcollation <> ty.typcollation THEN ' collate ' || co.collname ELSE '' END
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
              JOIN pg_type ty ON ty.oid = a.atttypid LEFT JOIN pg_attrdef ad ON ad.adrelid = c.oid AND ad.adnum = a.attnum
              LEFT JOIN pg_collation co ON co.oid = a.attcollation
             WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v', 'c') AND a.attnum > 0 AND NOT a.attisdropped AND {USER_SCHEMAS}
               AND {_free("pg_class", "c.oid")}""",
        f"""SELECT 'index', format('%I.%I', n.nspname, x.relname),
                   pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
              FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
              JOIN pg_namespace n ON n.oid = x.relnamespace
             WHERE {USER_SCHEMAS} AND c.relkind IN ('r', 'p', 'm') AND {_free("pg_class", "c.oid")}""",
        f"""SELECT 'constraint', {name} || format('.%I', o.conname), pg_get_constraintdef(o.oid)
                   || CASE WHEN o.convalidated THEN '' ELSE ' not validated' END
              FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMAS} AND o.contype NOT IN ('n', 't') AND {_free("pg_class", "c.oid")}""",
        f"""SELECT 'trigger', {name} || format('.%I', g.tgname),
                   replace(pg_get_triggerdef(g.oid), 'EXECUTE PROCEDURE', 'EXECUTE FUNCTION') || ' ' || g.tgenabled::text
              FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE NOT g.tgisinternal AND {USER_SCHEMAS} AND {_free("pg_class", "c.oid")}""",
        f"SELECT 'view', {name}, md5(pg_get_viewdef(c.oid)) {relations} AND c.relkind IN ('v', 'm')",
        f"""SELECT 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
                   {function_kind} || ' ' || l.lanname || ' ' || p.provolatile::text
                   || CASE WHEN p.prosecdef THEN ' security definer' ELSE '' END
                   || CASE WHEN p.proisstrict THEN ' strict' ELSE '' END || ' returns ' || coalesce(pg_get_function_result(p.oid), '')
                   || ' ' || md5(coalesce({body}, '')) || coalesce(' ' || array_to_string(p.proconfig, ' '), '')
              FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
             WHERE {USER_SCHEMAS} AND {_free("pg_proc", "p.oid")}""",
        f"""SELECT 'enum', format('%I.%I', n.nspname, ty.typname),
                   (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = ty.oid)
              FROM pg_type ty JOIN pg_namespace n ON n.oid = ty.typnamespace WHERE ty.typtype = 'e' AND {USER_SCHEMAS}
               AND {_free("pg_type", "ty.oid")}""",
        f"""SELECT 'domain', format('%I.%I', n.nspname, ty.typname), format_type(ty.typbasetype, ty.typtypmod)
                   || CASE WHEN ty.typnotnull THEN ' not null' ELSE '' END || coalesce(' default ' || ty.typdefault, '')
                   || coalesce((SELECT string_agg(' ' || pg_get_constraintdef(o.oid) || o.convalidated::text, '' ORDER BY o.conname)
                                  FROM pg_constraint o WHERE o.contypid = ty.oid AND o.contype <> 'n'), '')
              FROM pg_type ty JOIN pg_namespace n ON n.oid = ty.typnamespace WHERE ty.typtype = 'd' AND {USER_SCHEMAS}
               AND {_free("pg_type", "ty.oid")}""",
        f"""SELECT 'rule', {name} || format('.%I', r.rulename), md5(pg_get_ruledef(r.oid)) || r.ev_enabled::text
              FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE r.rulename <> '_RETURN' AND {USER_SCHEMAS} AND {_free("pg_class", "c.oid")}""",
        f"""SELECT 'policy', {name} || format('.%I', p.polname), p.polcmd::text || ' ' || coalesce(pg_get_expr(p.polqual, c.oid), '') || ' '
                   || coalesce(pg_get_expr(p.polwithcheck, c.oid), '')
              FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMAS}""",
    ]
    if version >= 100000:
        queries.append(f"""
            SELECT 'sequence options', {name}, format_type(s.seqtypid, NULL)
                   || format(' start %s increment %s min %s max %s cache %s', s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache)
                   || CASE WHEN s.seqcycle THEN ' cycle' ELSE '' END
              FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMAS} AND c.relpersistence <> 't' AND {_free("pg_class", "c.oid")}""")
    return queries
