# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Roles that belong to a provider and not to the user, as data.

Names are matched as whole words by regular expression. A role that matches the profile of the source's or of the target's type is
neither created nor altered, and no membership in it is granted.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t


@dataclasses.dataclass(frozen=True)
class Profile:
    """What is special about one kind of server: names of provider roles, and predefined roles that its administrator cannot grant."""

    roles: tuple[str, ...] = ()
    ungrantable: tuple[str, ...] = ()


_SERVER_FILES = ("pg_read_server_files", "pg_write_server_files", "pg_execute_server_program")

PROFILES: dict[str, Profile] = {
    "self_managed": Profile(),
    "azure": Profile((r"azure_.*", r"azuresu", r"replication"), (*_SERVER_FILES, "pg_write_all_data")),
    "aws": Profile((r"rds_.*", r"rdsadmin", r"rdsrepladmin", r"rdstopmgr", r"rdswriteforwarduser", r"rdsproxyadmin"), _SERVER_FILES),
    "gcp": Profile((r"cloudsql.*", r"alloydb.*"), _SERVER_FILES),
    "other": Profile((r"aiven_extras.*", r"_aiven", r"supabase_.*", r"neon_superuser", r"digitalocean.*")),
}

OF_TYPE: dict[str, str] = {
    "azure_single_server": "azure",
    "azure_flexible": "azure",
    "aws_rds": "aws",
    "aws_aurora": "aws",
    "gcp_cloudsql": "gcp",
    "gcp_alloydb": "gcp",
    "other": "other",
}
"""Type of an endpoint to its profile; the rest are self-managed."""


def profile_of(endpoint_type: str) -> Profile:
    """The profile of an endpoint of this type."""
    return PROFILES[OF_TYPE.get(endpoint_type, "self_managed")]


def belongs_to_provider(name: str, types: t.Iterable[str]) -> bool:
    """Is ``name`` a role of a provider on one of the endpoint ``types``?"""
    return any(re.fullmatch(pattern, name) for kind in types for pattern in profile_of(kind).roles)
