# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What kinds of servers allow and refuse, as data: self-managed ones and those of the providers.

Nothing in the engine asks "is this Azure?"; it asks the profile. Facts come from the providers' public manuals (Azure Database for
PostgreSQL flexible server, Amazon RDS and Aurora, Google Cloud SQL and AlloyDB) and from the PostgreSQL manual. Where a server can be
asked itself (``pg_available_extensions``, ``SHOW azure.extensions``) it is asked instead.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import typing as t

SERVER_FILE_ROLES = ("pg_read_server_files", "pg_write_server_files", "pg_execute_server_program")
"""Predefined roles that reach the server's host; no managed service lets its customers have or give them."""

PRELOADED = {
    "pg_cron": "pg_cron",
    "pg_hint_plan": "pg_hint_plan",
    "pg_partman": "pg_partman_bgw",
    "pg_partman_bgw": "pg_partman_bgw",
    "pg_prewarm": "pg_prewarm",
    "pg_stat_statements": "pg_stat_statements",
    "pgaudit": "pgaudit",
    "pg_audit": "pgaudit",
    "pglogical": "pglogical",
    "wal2json": "wal2json",
}
"""Extension to the library that has to be in ``shared_preload_libraries`` (the eight names of Azure's guide, R30)."""

REFUSES_WITHOUT_PRELOAD = frozenset({"pg_cron", "pgaudit", "pglogical"})
"""Extensions whose CREATE EXTENSION fails on any server when their library is not preloaded."""

SUPERUSER_SETTINGS = (
    "log_statement",
    "log_min_messages",
    "log_min_error_statement",
    "log_min_duration_statement",
    "log_min_duration_sample",
    "log_statement_sample_rate",
    "log_transaction_sample_rate",
    "log_duration",
    "log_error_verbosity",
    "log_executor_stats",
    "log_lock_waits",
    "log_parser_stats",
    "log_planner_stats",
    "log_replication_commands",
    "log_statement_stats",
    "log_temp_files",
    "session_replication_role",
    "session_preload_libraries",
    "dynamic_library_path",
    "temp_file_limit",
    "track_activities",
    "track_counts",
    "track_functions",
    "track_io_timing",
    "track_wal_io_timing",
    "update_process_title",
    "deadlock_timeout",
    "commit_delay",
    "compute_query_id",
    "allow_in_place_tablespaces",
    "allow_system_table_mods",
    "backtrace_functions",
    "ignore_checksum_failure",
    "ignore_system_indexes",
    "jit_provider",
    "lc_messages",
    "lo_compat_privileges",
    "wal_compression",
    "wal_consistency_checking",
    "wal_init_zero",
    "wal_recycle",
    "zero_damaged_pages",
    "output_plugin_libraries",
)
"""Parameters of context ``superuser``: ALTER ROLE/DATABASE ... SET of them is refused to others."""

RESTRICTED_CATALOGS = (
    "pg_authid",
    "pg_largeobject",
    "pg_statistic",
    "pg_subscription",
    "pg_user_mapping",
    "pg_config",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_replication_origin_status",
    "pg_shadow",
    "pg_pltemplate",
)
"""Relations of ``pg_catalog`` whose grants a managed target refuses to repeat (Azure's 603410)."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """One kind of server.

    Role names are shell patterns (``fnmatch``). ``parameter_command`` and ``cdc_parameters`` are what a person runs or sets;
    ``{name}``, ``{value}``, ``{role}`` are filled in by :meth:`set_parameter` and :meth:`grant_replication`.
    """

    name: str
    managed: bool = True
    admin_role: str = ""  # the role whose members administer the server; '' where that is a superuser
    provider_roles: tuple[str, ...] = ()  # never created, altered, granted or migrated
    provider_databases: tuple[str, ...] = ()
    identity_roles: tuple[str, ...] = ()  # members of these log in through the provider's identity service, not with a password
    identity_label: str = ""  # provider of the security label that marks such roles
    refused_attributes: tuple[str, ...] = ("SUPERUSER",)  # words of CREATE ROLE that the administrator may not give
    refused_until: tuple[tuple[str, int], ...] = ()  # (attribute, first server_version_num that allows it)
    refused_settings: tuple[str, ...] = SUPERUSER_SETTINGS
    refused_memberships: tuple[str, ...] = SERVER_FILE_ROLES
    tablespaces: bool = False
    parameter_grants: bool = False
    untrusted_languages: bool = False
    catalog_grants: bool = False  # may grants on RESTRICTED_CATALOGS be repeated?
    user_collations: bool = True
    extension_parameter: str = ""  # name of the parameter that lists the allowed extensions
    preload_strict: bool = False  # the guide's eight libraries must be preloaded
    replication_grant: str = "ALTER ROLE {role} REPLICATION"
    replication_role: str = ""  # membership that stands for the attribute REPLICATION
    cdc_parameters: tuple[tuple[str, str], ...] = (("wal_level", "logical"),)
    parameter_command: str = "ALTER SYSTEM SET {name} = {value}"
    restart_command: str = ""
    ha_command: str = ""  # turns high availability on
    resize_command: str = ""  # changes the size of the server, which restarts it
    who: str = "a superuser"
    read_only_parameters: tuple[str, ...] = ()

    def is_provider_role(self, role: str) -> bool:
        """Does ``role`` belong to the provider or to PostgreSQL itself?"""
        return role.startswith("pg_") or any(fnmatch.fnmatchcase(role, pattern) for pattern in self.provider_roles)

    def set_parameter(self, name: str, value: str) -> str:
        """The command or instruction that sets a server parameter on this kind of server."""
        return self.parameter_command.format(name=name, value="'" + value.replace("'", "''") + "'")

    def grant_replication(self, quoted_role: str) -> str:
        """The statement that lets a role stream changes."""
        return self.replication_grant.format(role=quoted_role)

    def refuses(self, attribute: str, server_version: int) -> bool:
        """May the administrator not give ``attribute`` (``BYPASSRLS``...) to roles on a server of this version?"""
        return attribute in self.refused_attributes or any(attribute == a and server_version < since for a, since in self.refused_until)


FILES_AND_WAL = (
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
    "config_file",
    "data_directory",
    "data_checksums",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "huge_pages",
    "ident_file",
    "listen_addresses",
    "log_directory",
    "log_filename",
    "logging_collector",
    "port",
    "primary_conninfo",
    "restore_command",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_key_file",
    "unix_socket_directories",
    "wal_sync_method",
)
"""Parameters that the providers keep for themselves."""

SELF_MANAGED = Profile(
    name="self_managed",
    managed=False,
    refused_memberships=(),
    tablespaces=True,
    parameter_grants=True,
    untrusted_languages=True,
    catalog_grants=True,
    restart_command="systemctl restart postgresql",
)

AZURE_FLEXIBLE = Profile(
    name="azure_flexible",
    admin_role="azure_pg_admin",
    provider_roles=("azure_*", "azuresu", "replication"),
    identity_roles=("azure_ad_user", "azure_ad_mfa", "azure_ad_admin"),
    identity_label="pgaadauth",
    provider_databases=("azure_maintenance", "azure_sys"),
    refused_until=(("BYPASSRLS", 160000),),
    refused_memberships=(*SERVER_FILE_ROLES, "pg_write_all_data"),
    user_collations=False,
    extension_parameter="azure.extensions",
    preload_strict=True,
    parameter_command="az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER --name {name} --value {value}",
    restart_command="az postgres flexible-server restart --resource-group GROUP --name SERVER",
    ha_command="az postgres flexible-server update --resource-group GROUP --name SERVER --high-availability ZoneRedundant",
    resize_command="az postgres flexible-server update --resource-group GROUP --name SERVER --tier TIER --sku-name SKU",
    who="the owner of the Azure resource",
    read_only_parameters=FILES_AND_WAL,
)

AZURE_SINGLE = dataclasses.replace(
    AZURE_FLEXIBLE,
    name="azure_single_server",
    cdc_parameters=(("azure.replication_support", "logical"),),
    extension_parameter="",
    preload_strict=False,
    parameter_command="az postgres server configuration set --resource-group GROUP --server-name SERVER --name {name} --value {value}",
    restart_command="az postgres server restart --resource-group GROUP --name SERVER",
)

AWS_RDS = Profile(
    name="aws_rds",
    admin_role="rds_superuser",
    provider_roles=("rds_*", "rdsadmin", "rdsrepladmin", "rdstopmgr", "rdswriteforwarduser", "rdsproxyadmin"),
    identity_roles=("rds_iam", "rds_ad"),
    provider_databases=("rdsadmin",),
    refused_attributes=("SUPERUSER", "REPLICATION", "BYPASSRLS"),
    extension_parameter="rds.allowed_extensions",
    replication_grant="GRANT rds_replication TO {role}",
    replication_role="rds_replication",
    cdc_parameters=(("rds.logical_replication", "1"),),
    parameter_command="aws rds modify-db-parameter-group --db-parameter-group-name GROUP"
    " --parameters ParameterName={name},ParameterValue={value},ApplyMethod=pending-reboot",
    restart_command="aws rds reboot-db-instance --db-instance-identifier INSTANCE",
    ha_command="aws rds modify-db-instance --db-instance-identifier INSTANCE --multi-az --apply-immediately",
    resize_command="aws rds modify-db-instance --db-instance-identifier INSTANCE --db-instance-class CLASS",
    who="the owner of the AWS account",
    read_only_parameters=FILES_AND_WAL,
)

AWS_AURORA = dataclasses.replace(
    AWS_RDS,
    name="aws_aurora",
    # Parameters of logical replication are the cluster's; high availability is a second instance of it.
    parameter_command="aws rds modify-db-cluster-parameter-group --db-cluster-parameter-group-name GROUP"
    " --parameters ParameterName={name},ParameterValue={value},ApplyMethod=pending-reboot",
    ha_command="aws rds create-db-instance --db-cluster-identifier CLUSTER --db-instance-identifier REPLICA"
    " --engine aurora-postgresql --db-instance-class CLASS",
)

GCP_CLOUDSQL = Profile(
    name="gcp_cloudsql",
    admin_role="cloudsqlsuperuser",
    provider_roles=("cloudsql*", "alloydb*"),
    identity_roles=("cloudsqliamuser", "cloudsqliamserviceaccount", "cloudsqliamgroup", "alloydbiamuser"),
    provider_databases=("cloudsqladmin",),
    refused_attributes=("SUPERUSER", "BYPASSRLS"),
    cdc_parameters=(("cloudsql.logical_decoding", "on"),),
    parameter_command="gcloud sql instances patch INSTANCE --database-flags={name}={value}  # name all flags, not only this one",
    restart_command="gcloud sql instances restart INSTANCE",
    ha_command="gcloud sql instances patch INSTANCE --availability-type=REGIONAL",
    resize_command="gcloud sql instances patch INSTANCE --tier=TIER",
    who="the owner of the Google Cloud project",
    read_only_parameters=FILES_AND_WAL,
)

GCP_ALLOYDB = dataclasses.replace(
    GCP_CLOUDSQL,
    name="gcp_alloydb",
    admin_role="alloydbsuperuser",
    provider_databases=("alloydbadmin", "alloydbmetadata"),
    cdc_parameters=(("alloydb.logical_decoding", "on"),),
    parameter_command="gcloud alloydb instances update INSTANCE --database-flags={name}={value}  # name all flags, not only this one",
    restart_command="gcloud alloydb instances restart INSTANCE",
    ha_command="gcloud alloydb instances update INSTANCE --availability-type=REGIONAL",
    resize_command="gcloud alloydb instances update INSTANCE --cpu-count=COUNT",
)

OTHER = dataclasses.replace(
    SELF_MANAGED, name="other", provider_roles=("aiven_extras*", "_aiven", "supabase_*", "neon_superuser", "digitalocean*")
)

PROFILES = {p.name: p for p in (SELF_MANAGED, AZURE_FLEXIBLE, AZURE_SINGLE, AWS_RDS, AWS_AURORA, GCP_CLOUDSQL, GCP_ALLOYDB, OTHER)}

OF_TYPE = {
    "on_premises": "self_managed",
    "azure_vm": "self_managed",
    "aws_ec2": "self_managed",
    "gcp_compute": "self_managed",
}
"""Types of servers (:data:`spec.SOURCE_TYPES`, :data:`spec.TARGET_TYPES`) that have no profile of their own name."""


def profile_for(kind: str) -> Profile:
    """The profile of a server of type ``kind``; what is unknown counts as self-managed."""
    return PROFILES.get(OF_TYPE.get(kind, kind), SELF_MANAGED)


def belongs_to_provider(role: str, kinds: t.Iterable[str]) -> bool:
    """Is ``role`` one of a provider's on servers of any of these types, or PostgreSQL's own?"""
    return any(profile_for(kind).is_provider_role(role) for kind in kinds)
