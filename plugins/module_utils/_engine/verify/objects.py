# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How everything that is no relation is read for the comparison of definitions: one query per class of object."""

from __future__ import annotations

import typing as t

from ..postgres.catalog import USER_SCHEMAS
from ..postgres.identifiers import PREFIX
from .scope import FIRST_OID, USERS, Scope, flag, hidden, of_catalog

DROPPED_BY_PROVIDERS = "('extension', 'event trigger', 'publication', 'subscription', 'large object')"
"""Kinds whose comments and labels are not compared."""


def object_queries(scope: Scope) -> list[str]:
    """Queries for ``(kind, object, definition)``."""
    queries = [
        f"SELECT 'schema', format('%I', n.nspname), '' FROM pg_namespace n WHERE {USER_SCHEMAS} AND {of_catalog('pg_namespace', 'n.oid')}",
        """SELECT 'extension', format('%I', e.extname), CASE WHEN n.nspname ~ '^pg_' THEN '' ELSE 'in ' || quote_ident(n.nspname) END
             FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace""",
        *_functions(scope),
        *_types(scope),
        *(_identified(catalog, definition) for catalog, definition in _definitions(scope).items()),
        _transforms(),
        *_foreign(scope),
        *_remarks(),
    ]
    return queries + ([_publications(scope)] if scope.version >= 100000 else [])


def _identified(catalog: str, definition: str) -> str:
    return f"""
        SELECT i.type, i.identity, {definition} FROM {catalog} o, pg_identify_object('{catalog}'::regclass, o.oid, 0) i
         WHERE o.oid >= {FIRST_OID} AND {USERS} AND {of_catalog(catalog, "o.oid", "'e', 'i'")}"""


def _functions(scope: Scope) -> t.Iterator[str]:
    version = scope.version
    kind = "p.prokind::text" if version >= 110000 else "CASE WHEN p.proisagg THEN 'a' WHEN p.proiswindow THEN 'w' ELSE 'f' END"
    support = "CASE WHEN p.prosupport::oid <> 0 THEN ' support ' || p.prosupport::text ELSE '' END" if version >= 120000 else "''"
    # the body of a function of the SQL standard (14) is deparsed: see DEPARSED
    body = "CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE '' END" if version >= 140000 else "p.prosrc"
    name = "format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))"
    source = f"""FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
                WHERE {USER_SCHEMAS} AND {of_catalog("pg_proc", "p.oid", "'e', 'i'")}"""
    modify = " || ' ' || g.aggfinalmodify::text || g.aggmfinalmodify::text" if scope.oldest >= 110000 else ""
    aggregate = f"""(SELECT ' ' || concat_ws(' ', g.aggkind, g.aggnumdirectargs, g.aggtransfn::text, g.aggfinalfn::text,
        g.aggcombinefn::text,
        g.aggserialfn::text, g.aggdeserialfn::text, g.aggmtransfn::text, g.aggminvtransfn::text, g.aggmfinalfn::text, g.aggfinalextra,
        g.aggmfinalextra, g.aggsortop::regoperator, format_type(g.aggtranstype, NULL), g.aggtransspace,
        format_type(nullif(g.aggmtranstype, 0), NULL), quote_nullable(g.agginitval), quote_nullable(g.aggminitval)){modify}
        FROM pg_aggregate g WHERE g.aggfnoid = p.oid)"""
    yield f"""
        SELECT 'function', {name}, {kind} || ' ' || l.lanname || ' ' || p.provolatile::text || p.proparallel::text
               || ' (' || pg_get_function_arguments(p.oid) || ') returns ' || coalesce(pg_get_function_result(p.oid), '')
               || {flag("p.prosecdef", "security definer")} || {flag("p.proisstrict", "strict")} || {flag("p.proleakproof", "leakproof")}
               || ' cost ' || p.procost || ' rows ' || p.prorows || {support}
               || coalesce((SELECT ' transform ' || string_agg(format_type(u.y, NULL), ', ' ORDER BY u.n)
                              FROM unnest(p.protrftypes) WITH ORDINALITY u(y, n)), '')
               || ' ' || md5(coalesce({body}, '')) || coalesce(' set ' || array_to_string(p.proconfig, ', '), '')
               || coalesce({aggregate}, '') {source}"""
    if version >= 140000:
        yield f"SELECT 'function definition', {name}, md5(pg_get_function_sqlbody(p.oid)) {source} AND p.prosqlbody IS NOT NULL"


def _types(scope: Scope) -> list[str]:
    multirange = "coalesce(' multirange ' || format_type(nullif(g.rngmultitypid, 0), NULL), '')" if scope.oldest >= 140000 else "''"
    name, source = "format('%I.%I', n.nspname, ty.typname)", "pg_type ty JOIN pg_namespace n ON n.oid = ty.typnamespace"
    ours = f"{USER_SCHEMAS} AND {of_catalog('pg_type', 'ty.oid')}"
    return [
        f"""SELECT 'enum', {name}, (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                                      FROM pg_enum e WHERE e.enumtypid = ty.oid) FROM {source} WHERE ty.typtype = 'e' AND {ours}""",
        f"""SELECT 'domain', {name}, format_type(ty.typbasetype, ty.typtypmod) || {flag("ty.typnotnull", "not null")}
                   || coalesce(' default ' || ty.typdefault, '')
                   || CASE WHEN ty.typcollation <> b.typcollation THEN ' collate ' || (SELECT collname FROM pg_collation
                      WHERE oid = ty.typcollation) ELSE '' END
                   || coalesce((SELECT string_agg(format(' %I ', o.conname) || pg_get_constraintdef(o.oid) || o.convalidated::text, ''
                                                  ORDER BY o.conname)
                                  FROM pg_constraint o WHERE o.contypid = ty.oid AND o.contype <> 'n'), '')
              FROM {source} JOIN pg_type b ON b.oid = ty.typbasetype WHERE ty.typtype = 'd' AND {ours}""",
        f"""SELECT 'range', {name}, format_type(g.rngsubtype, NULL) || ' ' || (SELECT opcname FROM pg_opclass WHERE oid = g.rngsubopc)
                   || coalesce((SELECT ' collate ' || collname FROM pg_collation WHERE oid = g.rngcollation), '')
                   || ' ' || g.rngcanonical::text || ' ' || g.rngsubdiff::text || {multirange}
              FROM {source} JOIN pg_range g ON g.rngtypid = ty.oid WHERE {ours}""",
        f"""SELECT 'base type', {name}, concat_ws(' ', ty.typlen, ty.typbyval, ty.typalign, ty.typstorage, ty.typcategory,
                   ty.typispreferred,
                   ty.typdelim, ty.typinput::text, ty.typoutput::text, ty.typreceive::text, ty.typsend::text, ty.typmodin::text,
                   ty.typmodout::text, ty.typanalyze::text, quote_nullable(ty.typdefault), ty.typcollation <> 0, ty.typisdefined)
              FROM {source} WHERE ty.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = ty.oid) AND {ours}""",
    ]


def _named(catalog: str, prefix: str, oid: str) -> str:
    return f"""(SELECT format('%I.%I', y.nspname, x.{prefix}name) FROM {catalog} x JOIN pg_namespace y ON y.oid = x.{prefix}namespace
                 WHERE x.oid = {oid})"""


def _definitions(scope: Scope) -> dict[str, str]:
    """Catalog to the SQL of its objects' definitions, of a row ``o``."""
    return {
        "pg_operator": f"""concat_ws(' ', o.oprcode::text, format_type(o.oprresult, NULL), o.oprcom::regoperator, o.oprnegate::regoperator,
                           o.oprrest::text, o.oprjoin::text) || {flag("o.oprcanmerge", "merges")} || {flag("o.oprcanhash", "hashes")}""",
        "pg_opclass": f"""concat_ws(' ', (SELECT amname FROM pg_am WHERE oid = o.opcmethod), {_named("pg_opfamily", "opf", "o.opcfamily")},
                          format_type(o.opcintype, NULL), format_type(nullif(o.opckeytype, 0), NULL))
                          || {flag("o.opcdefault", "default")}""",
        "pg_opfamily": """concat_ws(' ', (SELECT amname FROM pg_am WHERE oid = o.opfmethod),
            (SELECT string_agg(concat_ws(' ', a.amopstrategy, a.amopopr::regoperator, a.amoppurpose), ', '
                               ORDER BY a.amopstrategy, a.amopopr::regoperator::text) FROM pg_amop a WHERE a.amopfamily = o.oid),
            (SELECT string_agg(concat_ws(' ', a.amprocnum, a.amproc::regprocedure), ', ' ORDER BY a.amprocnum, a.amproc::regprocedure::text)
               FROM pg_amproc a WHERE a.amprocfamily = o.oid))""",
        "pg_collation": _collation(scope),
        "pg_conversion": f"""concat_ws(' ', pg_encoding_to_char(o.conforencoding), pg_encoding_to_char(o.contoencoding), o.conproc::text)
                             || {flag("o.condefault", "default")}""",
        "pg_cast": "concat_ws(' ', o.castfunc::regprocedure, o.castcontext, o.castmethod)",
        "pg_language": """concat_ws(' ', o.lanpltrusted, o.lanplcallfoid::regprocedure, o.laninline::regprocedure,
                          o.lanvalidator::regprocedure)""",
        "pg_ts_config": f"""concat_ws(' ', {_named("pg_ts_parser", "prs", "o.cfgparser")},
            (SELECT string_agg(concat_ws(' ', m.maptokentype, m.mapdict::regdictionary), ', ' ORDER BY m.maptokentype, m.mapseqno)
               FROM pg_ts_config_map m WHERE m.mapcfg = o.oid))""",
        "pg_ts_dict": f"concat_ws(' ', {_named('pg_ts_template', 'tmpl', 'o.dicttemplate')}, o.dictinitoption)",
        "pg_ts_parser": "concat_ws(' ', o.prsstart::text, o.prstoken::text, o.prsend::text, o.prsheadline::text, o.prslextype::text)",
        "pg_ts_template": "concat_ws(' ', o.tmplinit::text, o.tmpllexize::text)",
        "pg_am": "o.amtype::text || ' ' || o.amhandler::text",
        "pg_event_trigger": "concat_ws(' ', o.evtevent, o.evtenabled, o.evtfoid::regproc, array_to_string(o.evttags, ', '))",
        "pg_foreign_data_wrapper": "concat_ws(' ', o.fdwhandler::regproc, o.fdwvalidator::regproc) || "
        + hidden("o.fdwoptions", scope.salt),
        "pg_foreign_server": f"""concat_ws(' ', (SELECT quote_ident(w.fdwname) FROM pg_foreign_data_wrapper w WHERE w.oid = o.srvfdw),
                                 quote_nullable(o.srvtype), quote_nullable(o.srvversion)) || {hidden("o.srvoptions", scope.salt)}""",
    }


def _transforms() -> str:
    """What PostgreSQL calls them depends on its version."""
    return f"""
        SELECT 'transform', format('for %s language %I', format_type(o.trftype, NULL), l.lanname), concat_ws(' ', o.trffromsql, o.trftosql)
          FROM pg_transform o JOIN pg_language l ON l.oid = o.trflang
         WHERE o.oid >= {FIRST_OID} AND {of_catalog("pg_transform", "o.oid")}"""


def _collation(scope: Scope) -> str:
    """``outdated``: the libraries have another version of it than the one that the database relies on."""
    if scope.version < 100000:
        return "'c ' || o.collcollate || ' ' || o.collctype"
    locale = "o.colllocale" if scope.version >= 170000 else "o.colliculocale" if scope.version >= 150000 else "NULL"
    deterministic = flag("NOT o.collisdeterministic", "nondeterministic") if scope.version >= 120000 else "''"
    outdated = flag("o.collversion IS DISTINCT FROM pg_collation_actual_version(o.oid)", "outdated")
    rules = "coalesce(' rules ' || o.collicurules, '')" if scope.version >= 160000 else "''"
    return f"""o.collprovider::text || ' ' || coalesce({locale}, o.collcollate) || CASE WHEN o.collprovider = 'c' THEN ' ' || o.collctype
               ELSE '' END || {deterministic} || {rules} || {outdated}"""


def _foreign(scope: Scope) -> list[str]:
    """User mappings. Who may not see their options sees NULL, which is not compared; no value is shown to anybody."""
    name = "format('%I on %I', coalesce(m.usename, 'public'), m.srvname)"
    seen = "(m.umoptions IS NOT NULL OR current_setting('is_superuser') = 'on')"
    return [
        f"SELECT 'user mapping', {name}, '' FROM pg_user_mappings m",
        f"SELECT 'user mapping options', {name}, {hidden('m.umoptions', scope.salt)} FROM pg_user_mappings m WHERE {seen}",
    ]


def _publications(scope: Scope) -> str:
    truncate = "o.pubtruncate" if scope.oldest >= 110000 else "''"
    root = "o.pubviaroot" if scope.oldest >= 130000 else "''"
    return f"""
        SELECT 'publication', format('%I', o.pubname), concat_ws(' ', o.puballtables, o.pubinsert, o.pubupdate, o.pubdelete, {truncate},
               {root},
               (SELECT string_agg(r.prrelid::regclass::text, ', ' ORDER BY r.prrelid::regclass::text)
                  FROM pg_publication_rel r WHERE r.prpubid = o.oid))
          FROM pg_publication o WHERE o.pubname !~ '^{PREFIX}' AND {of_catalog("pg_publication", "o.oid")}"""


def _remarks() -> list[str]:
    """Comments and security labels."""
    own = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.classoid AND d.objid = o.objoid AND d.deptype = 'e')"
    which = f"(o.objoid >= {FIRST_OID} OR i.identity = 'public') AND i.type NOT IN {DROPPED_BY_PROVIDERS} AND {USERS} AND {own}"
    label = "i.type || ' ' || i.identity"
    return [
        f"""SELECT 'comment', {label}, o.description
              FROM pg_description o, pg_identify_object(o.classoid, o.objoid, o.objsubid) i WHERE {which}""",
        f"""SELECT 'security label', {label} || ' of ' || o.provider, o.label
              FROM pg_seclabel o, pg_identify_object(o.classoid, o.objoid, o.objsubid) i WHERE {which}""",
    ]
