# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Statements, lists and memory of globals, without a server."""

from __future__ import annotations

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals import statements as sql
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.marker import Marker, fingerprint, is_verifier
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.state import Membership
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.profiles import belongs_to_provider
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import Endpoint
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("stored", "items"),
    [
        ('"$user", public', ["$user", "public"]),
        ('"a, b","c""d",  e ', ["a, b", 'c"d', "e"]),
        ("", []),
        ('""', [""]),
        ("one", ["one"]),
    ],
)
def test_split_list(stored: str, items: list[str]) -> None:
    assert sql.split_list(stored) == items


@given(st.lists(NAMES, max_size=5))
def test_split_list_reads_what_is_quoted(items: list[str]) -> None:
    assert sql.split_list(", ".join('"' + item.replace('"', '""') + '"' for item in items)) == items


def test_set_clause_takes_lists_apart_and_leaves_other_values_whole() -> None:
    assert sql.set_clause("search_path", '"$user", public') == "SET \"search_path\" TO '$user', 'public'"
    assert sql.set_clause("DateStyle", "ISO, MDY") == "SET \"DateStyle\" TO 'ISO, MDY'"
    assert sql.set_clause("temp_tablespaces", "") == "SET \"temp_tablespaces\" TO ''"
    assert sql.set_clause("app.who", "o'x\\") == "SET \"app\".\"who\" TO E'o''x\\\\'"


def test_settings_with_the_same_list_are_the_same() -> None:
    assert sql.same_setting("search_path", "a,  b", '"a", b')
    assert not sql.same_setting("search_path", "a, b", '"a, b"')
    assert not sql.same_setting("work_mem", "1MB", None)


def test_membership_options_by_version() -> None:
    one = Membership('r"x', "m", True, False, True, ())
    assert sql.grant_membership(one, modern=True) == 'GRANT "r""x" TO "m" WITH ADMIN TRUE, INHERIT FALSE, SET TRUE'
    assert sql.grant_membership(one, modern=False) == 'GRANT "r""x" TO "m" WITH ADMIN OPTION'


def test_passwords_are_hidden_where_shown() -> None:
    assert sql.password_clause("SCRAM-SHA-256$x", shown=True) == "PASSWORD '********'"
    assert sql.password_clause("SCRAM-SHA-256$x", shown=False) == "PASSWORD 'SCRAM-SHA-256$x'"
    assert sql.password_clause(None, shown=True) == "PASSWORD NULL"


@pytest.mark.parametrize("comment", [None, "", "text", "[1]", '{"passwords": 3}', '{"admin": null}'])
def test_a_strange_comment_remembers_nothing(comment: str | None) -> None:
    assert Marker.from_comment(comment) == Marker()


@given(st.frozensets(NAMES, max_size=4), st.dictionaries(NAMES, NAMES, max_size=4))
def test_memory_is_read_as_written(admin: frozenset[str], passwords: dict[str, str]) -> None:
    assert Marker.from_comment(Marker(admin, passwords).to_comment()) == Marker(admin, passwords)


def test_fingerprints_need_a_key_unless_the_verifier_is_salted() -> None:
    open_end, keyed = Endpoint("source", "other", "h", "u"), Endpoint("source", "other", "h", "u", password="k")
    assert fingerprint(open_end, open_end, "md5" + "0" * 32) == ""
    assert len(fingerprint(open_end, open_end, "SCRAM-SHA-256$4096:c2FsdA==$a:b")) == 16
    assert fingerprint(keyed, open_end, "md5" + "0" * 32) != fingerprint(keyed, open_end, "md5" + "1" * 32)
    assert is_verifier("md5" + "0" * 32) and not is_verifier("md5 is my password")


def test_provider_roles() -> None:
    assert belongs_to_provider("azure_pg_admin", ["azure_flexible"])
    assert belongs_to_provider("rds_superuser", ["aws_aurora", "azure_flexible"])
    assert not belongs_to_provider("azure_pg_admin", ["on_premises", "self_managed"])
    assert not belongs_to_provider("my_azure_role", ["azure_flexible"])
