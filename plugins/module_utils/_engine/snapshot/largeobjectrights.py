# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Owner, grants and comment of large objects: read on both sides, and made alike on the target with one message for many objects."""

from __future__ import annotations

import typing as t

from ..postgres.drivers import psycopg
from ..postgres.identifiers import quote_ident, quote_literal
from . import leftout

OWNER, PUBLIC, ROLE = "o", "p", "r"
"""What the name of a grantee begins with: the owner whoever that is, everybody, or a role, whose name follows."""


PRIVILEGES = ("SELECT", "UPDATE")
"""What can be granted on a large object (manual 5.8)."""


class Grant(t.NamedTuple):
    """``privilege`` (SELECT or UPDATE) of ``who``, see :data:`OWNER`; ``grantable``: with grant option."""

    who: str
    privilege: str
    grantable: bool


class Facts(t.NamedTuple):
    """What a large object is besides its content. The grants are those in force: no list at all means the server's default."""

    owner: str
    comment: str | None
    grants: frozenset[Grant]


_FACTS = """
    SELECT m.oid::bigint, pg_get_userbyid(m.lomowner)::text, d.description,
           ARRAY(SELECT CASE a.grantee WHEN m.lomowner THEN 'o' WHEN 0 THEN 'p' ELSE 'r' || pg_get_userbyid(a.grantee) END
                        || ' ' || a.privilege_type || CASE WHEN a.is_grantable THEN ' y' ELSE ' n' END
                   FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) a)
      FROM (SELECT oid, lomowner, lomacl FROM pg_largeobject_metadata WHERE {which}) m
      LEFT JOIN pg_description d ON d.objoid = m.oid AND d.classoid = 'pg_largeobject'::regclass AND d.objsubid = 0"""


def read_facts(conn: psycopg.Connection[t.Any], oids: t.Sequence[int]) -> dict[int, Facts]:
    """The facts of those of ``oids`` that there are."""
    return _read(conn, "oid = ANY(%s::bigint[]::oid[])", [list(oids)])


def read_facts_after(conn: psycopg.Connection[t.Any], oid: int, most: int) -> dict[int, Facts]:
    """The facts of the first ``most`` large objects after ``oid``, in the order of their OIDs."""
    return _read(conn, "oid > %s::bigint::oid ORDER BY oid LIMIT %s", [oid, most])


def _read(conn: psycopg.Connection[t.Any], which: str, values: t.Sequence[t.Any]) -> dict[int, Facts]:
    rows = conn.execute(_FACTS.format(which=which).encode(), values).fetchall()
    return {oid: Facts(owner, comment, _grants(grants)) for oid, owner, comment, grants in rows}


def _grants(texts: t.Sequence[str]) -> frozenset[Grant]:
    """The grants of one object out of the text of each."""
    split = (text.rsplit(" ", 2) for text in texts)
    return frozenset(_once(Grant(who, privilege, option == "y") for who, privilege, option in split))


def _once(grants: t.Iterable[Grant]) -> set[Grant]:
    """``grants`` without those that somebody has with grant option as well."""
    every = set(grants)
    return {grant for grant in every if grant.grantable or grant._replace(grantable=True) not in every}


class Rights:
    """Makes large objects of the target look like those of the source, as far as the user of ``target`` may.

    What cannot be had is left as it is, and told by :attr:`notes`: owners of whom we are no member, roles that are not there.
    """

    def __init__(self, target: psycopg.Connection[t.Any]) -> None:
        self._target = target
        mode = "SET" if target.info.server_version >= 160000 else "MEMBER"
        rows = target.execute("SELECT rolname::text, pg_has_role(current_user, oid, %s) FROM pg_roles", [mode]).fetchall()
        self._roles = dict(rows)
        self._unowned: set[str] = set()
        self._absent: set[str] = set()

    @property
    def notes(self) -> list[str]:
        """What was left out, for people."""
        user = self._target.info.user
        texts = [leftout.LARGE_OBJECT_OWNER.say(name=name, user=user) for name in sorted(self._unowned)]
        texts += [leftout.LARGE_OBJECT_GRANT.say(name=name) for name in sorted(self._absent)]
        return texts

    def level(self, wanted: t.Mapping[int, Facts], present: t.Mapping[int, Facts]) -> int:
        """Give each object of ``present`` what ``wanted`` says of it; how many were changed."""
        each = [self._statements(oid, wanted[oid], facts) for oid, facts in present.items()]
        changed = [statements for statements in each if statements]
        if changed:
            self._target.execute("; ".join(text for statements in changed for text in statements).encode())
        return len(changed)

    def _statements(self, oid: int, wanted: Facts, present: Facts) -> list[str]:
        """The owner first: with the ownership go what the old one granted and was granted."""
        statements = []
        owner = wanted.owner if self._roles.get(wanted.owner) else present.owner
        if owner != wanted.owner:
            self._unowned.add(wanted.owner)
        if owner != present.owner:
            statements.append(f"ALTER LARGE OBJECT {oid} OWNER TO {quote_ident(owner)}")
        statements += _regrant(oid, owner, _of_owner(self._known(wanted.grants), owner), _of_owner(present.grants, owner))
        if wanted.comment != present.comment:
            said = "NULL" if wanted.comment is None else quote_literal(wanted.comment)
            statements.append(f"COMMENT ON LARGE OBJECT {oid} IS {said}")
        return statements

    def _known(self, grants: t.Iterable[Grant]) -> set[Grant]:
        """Those of ``grants`` whose grantee the target has."""
        kept = {grant for grant in grants if grant.who[0] != ROLE or grant.who[1:] in self._roles}
        self._absent |= {grant.who[1:] for grant in grants if grant not in kept}
        return kept


def _of_owner(grants: t.Iterable[Grant], owner: str) -> set[Grant]:
    """``grants`` when ``owner`` is the owner: what a role of that name was granted is then the owner's."""
    own = ROLE + owner
    return _once(grant._replace(who=OWNER) if grant.who == own else grant for grant in grants)


def _regrant(oid: int, owner: str, wanted: set[Grant], present: set[Grant]) -> list[str]:
    """What turns the grants ``present`` into ``wanted``. Where something goes, all that those have goes, with what they granted on."""
    gone = sorted({grant.who for grant in present - wanted})
    missing = wanted if gone else wanted - present
    statements = []
    if gone:
        names = ", ".join(_name(who, owner) for who in gone)
        statements.append(f"REVOKE ALL ON LARGE OBJECT {oid} FROM {names} CASCADE")
    for who, grantable in sorted({(grant.who, grant.grantable) for grant in missing}):
        privileges = ", ".join(word for word in PRIVILEGES if Grant(who, word, grantable) in missing)
        option = " WITH GRANT OPTION" if grantable else ""
        statements.append(f"GRANT {privileges} ON LARGE OBJECT {oid} TO {_name(who, owner)}{option}")
    return statements


def _name(who: str, owner: str) -> str:
    return {OWNER: quote_ident(owner), PUBLIC: "PUBLIC"}.get(who) or quote_ident(who[1:])
