# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Everything on a server that a migration could touch, to be compared before and after."""

from __future__ import annotations

import typing as t

import servers as lab

WHOLE = {
    "settings": "SELECT name, reset_val, sourcefile, pending_restart FROM pg_settings WHERE source NOT IN ('client', 'session') ORDER BY 1",
    "files": "SELECT name, setting, sourcefile FROM pg_file_settings ORDER BY seqno",
    "hba": "SELECT type, database, user_name, address, auth_method FROM pg_hba_file_rules ORDER BY line_number",
    "roles": "SELECT rolname::text, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,"
    " rolconnlimit, rolpassword, rolvaliduntil::text FROM pg_authid ORDER BY 1",
    "memberships": "SELECT m.roleid::regrole::text, m.member::regrole::text, m.admin_option FROM pg_auth_members m ORDER BY 1, 2",
    "role settings": "SELECT setdatabase::int, setrole::regrole::text, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
    "databases": "SELECT datname::text, datdba::regrole::text, datacl::text, datallowconn FROM pg_database ORDER BY 1",
    "slots": "SELECT slot_name::text, plugin::text, active FROM pg_replication_slots ORDER BY 1",
    "comments": "SELECT objoid::int, description FROM pg_shdescription ORDER BY 1",
}
INSIDE = {
    "classes": "SELECT oid::int, relname::text, relkind::text, relacl::text, relreplident::text, relowner::regrole::text, relfilenode::int"
    " FROM pg_class WHERE relkind <> 't' ORDER BY 1",
    "schemas": "SELECT nspname::text, nspacl::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_t%' ORDER BY 1",
    "functions": "SELECT oid::int, proacl::text FROM pg_proc ORDER BY 1",
    "triggers": "SELECT oid::int, tgenabled::text FROM pg_trigger ORDER BY 1",
    "publications": "SELECT pubname::text, puballtables FROM pg_publication ORDER BY 1",
    "published": "SELECT prpubid::int, prrelid::int FROM pg_publication_rel ORDER BY 1, 2",
    "extensions": "SELECT extname::text, extversion FROM pg_extension ORDER BY 1",
    "default privileges": "SELECT defaclobjtype::text, defaclacl::text FROM pg_default_acl ORDER BY 1, 2",
}


def footprint(server: lab.Server, *databases: str) -> dict[str, t.Any]:
    """The catalogs of ``server``, of ``databases`` in it, and the text of its configuration files."""
    found: dict[str, t.Any] = {}
    with server.connect() as conn:
        for name, query in WHOLE.items():
            found[name] = conn.execute(t.cast(t.Any, query)).fetchall()
    for database in databases:
        with server.connect(database) as conn:
            for name, query in INSIDE.items():
                text = query if server.major >= 14 else _written_out(query)
                found[f"{name} of {database}"] = conn.execute(t.cast(t.Any, text)).fetchall()
    for path in sorted(server.data.glob("*.conf")):
        found[path.name] = path.read_text(encoding="utf-8")
    return found


def _written_out(query: str) -> str:
    """Before 14 single grants are needed, and PostgreSQL keeps the default privileges written out after the last one is revoked."""
    default = "acldefault(CASE relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r' END, relowner)"
    return query.replace("relacl::text", f"coalesce(relacl, {default})::text").replace(
        "nspacl::text", "coalesce(nspacl, acldefault('n', nspowner))::text"
    )


def difference(before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What differs, for an assertion that tells it."""
    return {name: (before.get(name), after.get(name)) for name in {*before, *after} if before.get(name) != after.get(name)}
