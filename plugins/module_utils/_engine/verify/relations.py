# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How tables, views, sequences and what belongs to them are read for the comparison of definitions: one query per class of object."""

from __future__ import annotations

from ..postgres.catalog import USER_SCHEMAS
from .scope import NAME, Scope, flag, listed, of_catalog

JOINED = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
VIEWS = "c.relkind IN ('v', 'm')"
OURS = f"{USER_SCHEMAS} AND {of_catalog('pg_class', 'c.oid')}"


def relation_queries(scope: Scope) -> list[str]:
    """Queries for ``(kind, object, definition)``."""
    every = [_relations(scope), _columns(scope), _indexes(scope), _constraints(scope), *_triggers(scope), *_rules(), *_policies(scope)]
    every += [_foreign_tables(), f"SELECT 'view definition', {NAME}, md5(pg_get_viewdef(c.oid)) FROM {JOINED} WHERE {VIEWS} AND {OURS}"]
    return every + ([_sequences(), _statistics(scope)] if scope.version >= 100000 else [])


def _relations(scope: Scope) -> str:
    partition, method = "''", "''"
    if scope.version >= 100000:
        partition = (
            "CASE WHEN c.relispartition THEN ' partition ' || pg_get_expr(c.relpartbound, c.oid) ELSE '' END"
            " || CASE WHEN c.relkind = 'p' THEN ' by ' || pg_get_partkeydef(c.oid) ELSE '' END"
        )
    if scope.version >= 120000:
        method = "coalesce((SELECT ' using ' || am.amname FROM pg_am am WHERE am.oid = c.relam AND am.amname <> 'heap'), '')"
    parents = """coalesce((SELECT ' inherits ' || string_agg(h.inhparent::regclass::text, ', ' ORDER BY h.inhseqno)
                             FROM pg_inherits h WHERE h.inhrelid = c.oid), '')"""
    toast = f"coalesce((SELECT ' toast' || nullif({listed('x.reloptions')}, '') FROM pg_class x WHERE x.oid = c.reltoastrelid), '')"
    identity = """CASE c.relreplident WHEN 'f' THEN ' replica identity full' WHEN 'n' THEN ' replica identity nothing' WHEN 'i' THEN
                  coalesce((SELECT ' replica identity ' || x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                             WHERE i.indrelid = c.oid AND i.indisreplident), '') ELSE '' END"""
    return f"""
        SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' WHEN 'm' THEN 'materialized view'
               WHEN 'c' THEN 'type' WHEN 'v' THEN 'view' ELSE 'table' END, {NAME},
               c.relkind::text || ' ' || c.relpersistence::text || {flag("c.relrowsecurity", "row security")}
               || {flag("c.relforcerowsecurity", "forced")} || {partition} || {parents} || {method} || {listed("c.reloptions")} || {toast}
               || {flag("c.relkind = 'm' AND NOT c.relispopulated", "not populated")}
               || CASE WHEN c.reloftype <> 0 THEN ' of ' || format_type(c.reloftype, NULL) ELSE '' END
               || CASE WHEN c.relkind IN ('r', 'p', 'm') THEN {identity} ELSE '' END
          FROM {JOINED} WHERE c.relkind IN ('r', 'p', 'f', 'm', 'S', 'c', 'v') AND c.relpersistence <> 't' AND {OURS}"""


def _columns(scope: Scope) -> str:
    generated = "CASE a.attgenerated WHEN '' THEN ' default ' ELSE ' generated ' || a.attgenerated::text || ' ' END"
    generated = generated if scope.version >= 120000 else "' default '"
    identity = "CASE a.attidentity WHEN '' THEN '' ELSE ' identity ' || a.attidentity::text END" if scope.version >= 100000 else "''"
    compression = "CASE a.attcompression WHEN '' THEN '' ELSE ' compression ' || a.attcompression::text END"
    collation = """(SELECT format('%I.%I', m.nspname, co.collname) FROM pg_collation co JOIN pg_namespace m ON m.oid = co.collnamespace
                     WHERE co.oid = a.attcollation)"""
    stored = "c.relkind IN ('r', 'p', 'm', 'f')"
    return f"""
        SELECT 'column', {NAME} || format('.%I', a.attname), format_type(a.atttypid, a.atttypmod)
               || {flag("a.attnotnull", "not null")} || {identity} || coalesce({generated} || pg_get_expr(ad.adbin, ad.adrelid), '')
               || CASE WHEN a.attcollation <> ty.typcollation THEN ' collate ' || {collation} ELSE '' END
               || CASE WHEN {stored} AND a.attstorage <> ty.typstorage THEN ' storage ' || a.attstorage::text ELSE '' END
               || {compression if scope.oldest >= 140000 else "''"}
               || CASE WHEN a.attstattarget >= 0 THEN ' statistics ' || a.attstattarget ELSE '' END
               || {listed("a.attoptions", "pg_attver=")} || {listed("a.attfdwoptions")}
          FROM {JOINED} JOIN pg_attribute a ON a.attrelid = c.oid
          JOIN pg_type ty ON ty.oid = a.atttypid LEFT JOIN pg_attrdef ad ON ad.adrelid = c.oid AND ad.adnum = a.attnum
         WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v', 'c') AND a.attnum > 0 AND NOT a.attisdropped AND {OURS}"""


def _indexes(scope: Scope) -> str:
    part = "coalesce((SELECT ' part of ' || h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = x.oid), '')"
    return f"""
        SELECT 'index', format('%I.%I', n.nspname, x.relname), pg_get_indexdef(i.indexrelid)
               || {flag("NOT i.indisvalid", "INVALID")} || {flag("i.indisclustered", "clustered")}
               || coalesce((SELECT ' statistics ' || string_agg(a.attnum || '=' || a.attstattarget, ', ' ORDER BY a.attnum)
                              FROM pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0), '')
               || {part if scope.version >= 110000 else "''"}
          FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
          JOIN pg_namespace n ON n.oid = x.relnamespace WHERE c.relkind IN ('r', 'p', 'm') AND {OURS}"""


def _constraints(scope: Scope) -> str:
    """Those of a partition that its parent's foreign key brings have names that PostgreSQL chooses anew. NOT NULL is a constraint from 18
    on; before it is a property of the column."""
    brought = "AND NOT (o.contype = 'f' AND o.conparentid <> 0)" if scope.version >= 110000 else ""
    left_out = "'t'" if scope.oldest >= 180000 else "'n', 't'"
    return f"""
        SELECT 'constraint', {NAME} || format('.%I', o.conname), pg_get_constraintdef(o.oid)
               || {flag("NOT o.convalidated", "not validated")} || {flag("o.connoinherit AND o.contype = 'c'", "not inherited")}
          FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE o.contype NOT IN ({left_out}) {brought} AND {OURS}"""


def _triggers(scope: Scope) -> list[str]:
    """A partition has a copy of its parent's row triggers, which only newer versions show."""
    copies = "AND g.tgparentid = 0" if scope.version >= 130000 and scope.oldest < 150000 else ""
    source = f"""
          FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE NOT g.tgisinternal {copies} AND {OURS}"""
    name = f"{NAME} || format('.%I', g.tgname)"
    tables = "coalesce(' old ' || g.tgoldtable, '') || coalesce(' new ' || g.tgnewtable, '')" if scope.version >= 100000 else "''"
    return [
        f"""SELECT 'trigger', {name}, g.tgtype || ' ' || g.tgenabled::text || ' ' || g.tgfoid::regproc::text || encode(g.tgargs, 'hex')
                   || coalesce((SELECT ' of ' || string_agg(a.attname::text, ', ' ORDER BY a.attname) FROM pg_attribute a
                                 WHERE a.attrelid = c.oid AND a.attnum = ANY (g.tgattr::int2[])), '')
                   || {flag("g.tgdeferrable", "deferrable")} || {flag("g.tginitdeferred", "deferred")} || {tables}
                   || CASE WHEN g.tgconstrrelid <> 0 THEN ' from ' || g.tgconstrrelid::regclass::text ELSE '' END {source}""",
        f"SELECT 'trigger definition', {name}, pg_get_triggerdef(g.oid) {source}",
    ]


def _rules() -> list[str]:
    name = f"{NAME} || format('.%I', r.rulename)"
    source = f"""FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE r.rulename <> '_RETURN' AND {OURS}"""
    return [
        f"SELECT 'rule', {name}, r.ev_type::text || r.ev_enabled::text || {flag('r.is_instead', 'instead')} {source}",
        f"SELECT 'rule definition', {name}, md5(pg_get_ruledef(r.oid)) {source}",
    ]


def _policies(scope: Scope) -> list[str]:
    name = f"{NAME} || format('.%I', p.polname)"
    source = f"FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {OURS}"
    permissive = flag("NOT p.polpermissive", "restrictive") if scope.version >= 100000 else "''"
    roles = """(SELECT string_agg(y.name, ', ' ORDER BY y.name) FROM unnest(p.polroles) u(r),
                LATERAL (SELECT CASE u.r WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(u.r)::text END AS name) y)"""
    expressions = "coalesce(pg_get_expr(p.polqual, c.oid), '') || ' ' || coalesce(pg_get_expr(p.polwithcheck, c.oid), '')"
    presence = f"{flag('p.polqual IS NOT NULL', 'using')} || {flag('p.polwithcheck IS NOT NULL', 'with check')}"
    return [
        f"SELECT 'policy', {name}, p.polcmd::text || {permissive} || ' to ' || {roles} || {presence} {source}",
        f"SELECT 'policy definition', {name}, {expressions} {source}",
    ]


def _foreign_tables() -> str:
    return f"""
        SELECT 'foreign table options', {NAME}, format('%I', s.srvname) || {listed("f.ftoptions")}
          FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE {OURS}"""


def _sequences() -> str:
    return f"""
        SELECT 'sequence options', {NAME}, format_type(s.seqtypid, NULL)
               || format(' start %s increment %s min %s max %s cache %s', s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache)
               || {flag("s.seqcycle", "cycle")}
               || coalesce((SELECT ' owned by ' || d.refobjid::regclass::text || '.' || a.attname
                              FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
                               AND d.deptype IN ('a', 'i')), '')
          FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relpersistence <> 't' AND {OURS}"""


def _statistics(scope: Scope) -> str:
    target = "CASE WHEN s.stxstattarget >= 0 THEN ' statistics ' || s.stxstattarget ELSE '' END" if scope.version >= 130000 else "''"
    return f"""
        SELECT 'statistics', format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid) || {target}
          FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
         WHERE {USER_SCHEMAS} AND {of_catalog("pg_statistic_ext", "s.oid", "'e', 'i'")}"""
