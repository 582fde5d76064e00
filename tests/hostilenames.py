# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Names that PostgreSQL takes and programs trip over: those that somebody thought of, and those that hypothesis makes up."""

from __future__ import annotations

import typing as t

from hypothesis import strategies as st

WORST = (
    "o'd\"d; DROP TABLE x; --",
    "%s %(a)s %% %",
    "{b} {} {0} {{",
    "back\\slash\\\\ E'\\'",
    "$$ $1 $tag$",
    "new\nline\r\n\ttab",
    " before and after ",
    "\fends in a tab\t",
    "select",
    "NULL",
    '"',
    "'",
    "\\",
    "\\.",
    "\\N",
    "\u4e2d" * 21,
    "\U0001f600" * 15,
    "x" * 63,
    "X" * 63,
    "e\u0301",
    "\u00e9",
    "host=x dbname=y",
    "postgresql://h:1/d?user=x",
    "a.b",
    "*.* [!a-z]",
    "-- x",
    "/* x */",
    ":v :'v' :\"v\"",
    "<b>&amp;</b>",
    "-x",
    "\x01\x7f",
    "\u202e\u200b\ufeff",
    "1",
    "..",
    "a,b",
)
"""Each of 63 bytes at most, as all names are."""

LONGEST = 63
"""Bytes of a name."""


def _fits(name: str) -> bool:
    return 0 < len(name.encode()) <= LONGEST and not name.startswith("pg_") and name not in ("public", "none")


characters = st.one_of(
    st.sampled_from("\"'\\%${}; \n\t\r.,:=*?[]!/-@#&<>|~`_aZ0"),
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
)
names: st.SearchStrategy[str] = st.one_of(st.sampled_from(WORST), st.text(characters, min_size=1, max_size=40).filter(_fits))
"""Any name that an object may have, but for roles that PostgreSQL keeps to itself."""


def several(count: int) -> st.SearchStrategy[list[str]]:
    """``count`` different names, some of them made up."""

    def mixed(found: t.Sequence[str]) -> bool:
        return count // 4 <= sum(name in WORST for name in found) <= count - count // 4

    return st.lists(names, min_size=count, max_size=count, unique=True).filter(mixed)
