# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The description of one migration: what the inventory says, checked, with the defaults filled in.

The whole engine takes its instructions from :class:`MigrationSpec`. It is immutable; two are the same migration when their
:meth:`MigrationSpec.digest` is the same, which leaves secrets and pure tuning out (R45).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import string
import typing as t

from .errors import SpecificationError

SOURCE_TYPES = (
    "on_premises",
    "azure_vm",
    "azure_single_server",
    "azure_flexible",
    "aws_rds",
    "aws_aurora",
    "aws_ec2",
    "gcp_cloudsql",
    "gcp_alloydb",
    "gcp_compute",
    "other",
)
TARGET_TYPES = ("azure_flexible", "self_managed", "aws_rds", "aws_aurora", "gcp_cloudsql", "gcp_alloydb", "other")
OPTIONS = ("validate", "migrate", "validate_and_migrate")
MODES = ("offline", "online")
PLUGINS = ("auto", "wal2json", "pgoutput", "test_decoding")
SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
IDENTITY_POLICIES = ("fail", "set_full", "exclude")
UNLOGGED_POLICIES = ("copy", "empty")
FOREIGN_POLICIES = ("keep", "exclude")
TARGET_SCHEMAS = ("create", "present")
FENCES = ("revoke_connect", "read_only", "locks", "external", "none")
SUPERUSER_POLICIES = ("remove", "demote")
ACKNOWLEDGE = ("spooled", "applied")
COMPRESSION = ("auto", "always", "never")
ON_DDL = ("fail", "pause", "ignore")
REGION_POLICIES = ("warn", "fail", "off")
ROLLBACKS = ("none", "prepared")

MAX_DATABASES = 8
"""Databases in one attempt (R65)."""

COPIES_AT_ONCE = 2
"""Databases whose base copy runs at the same time."""

PLACEHOLDERS = ("host", "port", "dbname")
"""What ``cutover.release_template`` may name in braces."""

MAX_LANES = 16
"""Connections to the target that apply the changes of one database."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
"""What a migration may be called (R44): letters, digits and hyphens, not a hyphen first."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One server and the login to it. ``password`` is never shown by ``repr`` nor by :meth:`public`."""

    side: str
    type: str
    host: str
    user: str
    port: int = 5432
    password: str = dataclasses.field(default="", repr=False)
    dbname: str = "postgres"
    sslmode: str = "prefer"
    sslrootcert: str = ""
    sslcert: str = ""
    sslkey: str = ""
    connect_timeout: int = 10
    storage_gb: int = 0  # size of the server's disk in GB, which it cannot be asked for; 0: not given
    vcores: int = 0  # its CPUs, for the same reason
    memory_gb: int = 0
    region: str = ""  # where it is, as its provider calls the place
    subscription: str = ""  # whose it is: for the report alone
    resource_group: str = ""
    tag: str = ""  # what the names of our sessions carry besides our own: the migration's key

    @classmethod
    def at(cls, host: str, port: int) -> Endpoint:
        """Some server of which no more than the address is known."""
        return cls("", "", host, "", port)

    def public(self) -> dict[str, t.Any]:
        """All but the password."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("password", "tag")}

    def label(self, dbname: str = "") -> str:
        """How errors and reports name this server: ``source db1:5432/shop as migrator``."""
        return f"{self.side} {self.host}:{self.port}/{dbname or self.dbname} as {self.user}"


@dataclasses.dataclass(frozen=True)
class CopyOptions:
    """The base copy. ``jobs`` relays, ``index_jobs`` index builders, ``chunk_bytes`` target size of a chunk (bytes).

    ``schemas``, ``tables`` and ``exclude`` say what is migrated of each database: names or shell patterns, of a schema (``sales``) or of a
    schema and a table (``sales.order_*``); empty: everything. They hold for the change stream too.
    """

    jobs: int = 2
    processes: int = 0  # that the relays of a large copy are shared out among; 0: one for each core but one
    index_jobs: int = 2
    chunk_bytes: int = 1 << 30
    format: str = "auto"  # auto | binary | text
    bindir: str = ""  # folder of pg_dump, pg_restore, psql; empty: the newest found
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    target_schema: str = "create"  # create: the database with its schema | present: both are there, and only rows are brought
    overwrite: bool = False  # when it is begun: drop a database on the target that is not ours, or empty the tables of one that is present
    throttle: int = 0  # bytes a second of all relays of a database together; 0: as fast as can be
    unlogged_tables: str = "copy"  # copy: their rows too, once more at the cutover | empty: their definitions alone
    foreign_tables: str = "keep"  # keep: their definitions | exclude
    max_connections: int = 0  # sessions on each side; 0: half of those that are free
    max_standby_lag: int = 0  # bytes that the source's standbys may be behind before the copy rests; 0: not watched
    probe_query: str = ""  # run on the source once a second; its time says whether the copy is too much
    probe_limit: int = 1000  # milliseconds of the probe query at which the copy rests

    @property
    def present(self) -> bool:
        """Is the schema on the target already, in a database that is not ours?"""
        return self.target_schema == "present"


@dataclasses.dataclass(frozen=True)
class ChangeOptions:
    """The change stream. Sizes in bytes, times in seconds."""

    plugin: str = "auto"
    acknowledge: str = "spooled"
    replica_identity: str = "fail"
    spool_max_bytes: int = 64 << 30
    spool_compression: str = "auto"  # auto: once the target is far behind
    segment_bytes: int = 64 << 20
    batch_rows: int = 50_000
    batch_bytes: int = 32 << 20
    lanes: int = 2  # connections that apply changes at the same time
    heartbeat: float = 1.0
    on_ddl: str = "fail"  # what DDL on the source does to the stream
    failover_slot: bool = False  # let the source's standbys keep the slot too (17 and later)
    max_retained_wal_bytes: int = 0  # WAL held by our slot; beyond it the slot is dropped; 0: no limit


@dataclasses.dataclass(frozen=True)
class CutoverOptions:
    """The cutover. Times in seconds. Commands are lists of words: ``release`` is run when the target may be written, ``fence_command``
    stops the writers, ``unfence_command`` lets them go on at the source, ``rollback_release`` is run when a rollback has led back
    there. ``release_template`` is the text for one database, by which ``release_file`` is written before either of these is run.
    ``pgbouncer`` are connection strings of admin consoles, without passwords; ``pgbouncer_databases`` what to pause there, by
    default the databases that migrate. ``databases``: switch these over and let the others go on; empty: all that are left."""

    databases: tuple[str, ...] = ()
    max_latency: float = 5.0
    max_pause: float = 30.0
    max_transaction_age: float = 300.0
    fence: str = "revoke_connect"
    force: bool = False
    release: tuple[str, ...] = ()
    fence_command: tuple[str, ...] = ()
    unfence_command: tuple[str, ...] = ()
    rollback_release: tuple[str, ...] = ()
    release_file: str = ""
    release_template: str = ""
    pgbouncer: tuple[str, ...] = ()
    pgbouncer_databases: tuple[str, ...] = ()
    verify: bool = True
    verify_before_release: bool = False  # compare within the pause: what differs is given back

    @property
    def proven(self) -> bool:
        """Does the fence say anything about the time after its marker? ``none`` trusts the user."""
        return self.fence != "none"


@dataclasses.dataclass(frozen=True)
class GlobalsOptions:
    """Roles and their settings. ``enabled``: brought to the target before the schema; superusers are left out or demoted (R35)."""

    enabled: bool = True
    superuser_policy: str = "remove"
    exclude: tuple[str, ...] = ()  # roles to leave out
    passwords: bool = True  # carry the stored verifiers; otherwise the roles that need a password are named
    tablespaces: dict[str, str] = dataclasses.field(default_factory=dict)  # of the source to those of the target that stand for them
    apply_parameters: bool = False  # set the target's server parameters like the source's, where a reload is enough (R40)


@dataclasses.dataclass(frozen=True)
class MonitorOptions:
    """Who is told how far it is. ``prometheus_dir``: folder of node_exporter's textfile collector; empty: no such file."""

    prometheus_dir: str = ""


@dataclasses.dataclass(frozen=True)
class ChecksOptions:
    """How strict the validation is. ``runtime_warn``, ``runtime_fail``: the runtime host's size as a share of the source's, below which
    it is a warning or a failure; ``region_policy``: what an unsupported pair of Azure's regions is."""

    runtime_warn: float = 1.0
    runtime_fail: float = 0.25
    region_policy: str = "warn"


@dataclasses.dataclass(frozen=True)
class LimitsOptions:
    """How long a migration may take, in seconds; 0: no limit. ``max_prerequisites``: its first step; ``max_copy``: from the beginning of
    the base copy until the rows of every database are on the target; ``max_wait``: from then on until its cutover (B19, R78)."""

    max_prerequisites: float = 180.0
    max_copy: float = 0.0
    max_wait: float = 0.0


@dataclasses.dataclass(frozen=True)
class MigrationSpec:
    """One migration of up to :data:`MAX_DATABASES` databases from one server to another."""

    name: str
    source: Endpoint
    target: Endpoint
    databases: tuple[str, ...]
    option: str = "validate_and_migrate"
    mode: str = "offline"
    rollback: str = "none"  # prepared: the cutover leaves a stream from the target back to the source
    back_of: str = ""  # this is such a stream, of the migration with this key; nothing on its target was made by us
    copy: CopyOptions = CopyOptions()
    changes: ChangeOptions = ChangeOptions()
    cutover: CutoverOptions = CutoverOptions()
    globals: GlobalsOptions = GlobalsOptions()
    monitor: MonitorOptions = MonitorOptions()
    checks: ChecksOptions = ChecksOptions()
    limits: LimitsOptions = LimitsOptions()

    @property
    def key(self) -> str:
        """What this migration is called on the runtime host, see :func:`key_of`."""
        return key_of(self.name, self.target)

    @property
    def online(self) -> bool:
        """Are changes streamed until a cutover?"""
        return self.mode == "online"

    def public(self) -> dict[str, t.Any]:
        """The specification as plain data without secrets."""
        data = dataclasses.asdict(self)
        data["source"] = self.source.public()
        data["target"] = self.target.public()
        data["databases"] = list(self.databases)
        data["cutover"] = {k: list(v) if isinstance(v, tuple) else v for k, v in data["cutover"].items()}
        data["copy"].update({key: list(data["copy"][key]) for key in ("schemas", "tables", "exclude")})
        data["globals"]["exclude"] = list(self.globals.exclude)
        return data

    def identity(self) -> dict[str, t.Any]:
        """What makes it this migration and no other; the rest may be changed between runs."""
        public = self.public()
        picked: dict[str, t.Any] = {k: public[k] for k in ("name", "databases", "option", "mode")}
        for side in ("source", "target"):
            picked[side] = {k: public[side][k] for k in ("type", "host", "port", "user")}
        picked["plugin"] = self.changes.plugin
        picked.update({k: public["copy"][k] for k in ("schemas", "tables", "exclude", "foreign_tables", "target_schema")})
        return picked

    def for_databases(self, names: t.Sequence[str]) -> MigrationSpec:
        """The same with the databases that ``all`` stands for."""
        return dataclasses.replace(self, databases=tuple(names))

    def digest(self) -> str:
        """SHA-256 of :meth:`identity`."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: t.Mapping[str, t.Any]) -> MigrationSpec:
        """The specification that ``data`` describes, as the inventory's ``pg_migration`` or as :meth:`public` gives it.

        :raises SpecificationError: naming the key that is wrong and what is allowed there.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        _refuse_unknown("pg_migration", data, known)
        databases = data.get("databases") or ()
        if isinstance(databases, str) or not all(isinstance(d, str) and d for d in databases):
            raise SpecificationError("pg_migration.databases must be a list of database names, or [all].")
        spec = cls(
            name=check_name(data.get("name", "")),
            source=endpoint_from("source", data.get("source")),
            target=endpoint_from("target", data.get("target")),
            databases=tuple(databases),
            option=_choice("option", data.get("option", "validate_and_migrate"), OPTIONS),
            mode=_choice("mode", data.get("mode", "offline"), MODES),
            rollback=_choice("rollback", data.get("rollback", "none"), ROLLBACKS),
            back_of=str(data.get("back_of", "")),
            copy=_section("copy", CopyOptions, data.get("copy")),
            changes=_section("changes", ChangeOptions, data.get("changes")),
            cutover=_section("cutover", CutoverOptions, data.get("cutover")),
            globals=_section("globals", GlobalsOptions, data.get("globals")),
            monitor=_section("monitor", MonitorOptions, data.get("monitor")),
            checks=_section("checks", ChecksOptions, data.get("checks")),
            limits=_section("limits", LimitsOptions, data.get("limits")),
        )
        _choice("changes.plugin", spec.changes.plugin, PLUGINS)
        _choice("changes.acknowledge", spec.changes.acknowledge, ACKNOWLEDGE)
        _choice("changes.spool_compression", spec.changes.spool_compression, COMPRESSION)
        _choice("changes.on_ddl", spec.changes.on_ddl, ON_DDL)
        _choice("changes.replica_identity", spec.changes.replica_identity, IDENTITY_POLICIES)
        check_cutover(spec.cutover)
        _choice("checks.region_policy", spec.checks.region_policy, REGION_POLICIES)
        _choice("globals.superuser_policy", spec.globals.superuser_policy, SUPERUSER_POLICIES)
        _choice("copy.format", spec.copy.format, ("auto", "binary", "text"))
        _choice("copy.unlogged_tables", spec.copy.unlogged_tables, UNLOGGED_POLICIES)
        _choice("copy.foreign_tables", spec.copy.foreign_tables, FOREIGN_POLICIES)
        _choice("copy.target_schema", spec.copy.target_schema, TARGET_SCHEMAS)
        if not 1 <= spec.changes.lanes <= MAX_LANES:
            raise SpecificationError(f"pg_migration.changes.lanes is {spec.changes.lanes}; allowed: 1 to {MAX_LANES}.")
        if any("." not in pattern for pattern in spec.copy.tables):
            raise SpecificationError("pg_migration.copy.tables holds a name without its schema.", hint="Write schema.table, or schema.*.")
        for key, seconds in dataclasses.asdict(spec.limits).items():
            if seconds < 0:
                raise SpecificationError(f"pg_migration.limits.{key} is {seconds:g}; allowed: seconds, or 0 for no limit.")
        check_rollback(spec)
        if (spec.source.host.lower(), spec.source.port) == (spec.target.host.lower(), spec.target.port):
            raise SpecificationError("Source and target are the same server.", hint="Give the target's own host and port.")
        return spec


def key_of(name: str, target: Endpoint) -> str:
    """A migration's name and six digits of its target, because a name is unique per target only (R45)."""
    address = f"{target.host.lower()}:{target.port}"
    return f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:6]}"


def check_name(name: t.Any) -> str:
    """``name`` if a migration may be called so (R44).

    :raises SpecificationError: otherwise.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise SpecificationError(
            f"The migration name {name!r} is not allowed: only letters, digits and hyphens, not a hyphen first, at most 63.",
            code="PGM1002",
            hint="Choose a name such as shop-2026.",
        )
    return name


def check_cutover(options: CutoverOptions) -> None:
    """What must hold between the options of a cutover.

    :raises SpecificationError: what does not.
    """
    _choice("cutover.fence", options.fence, FENCES)
    if any(re.search(r"\bpassword\s*=|//[^/@]*:[^/@]*@", admin) for admin in options.pgbouncer):
        raise SpecificationError(
            "pg_migration.cutover.pgbouncer holds a password.",
            hint="Write it into a file that the service can read: passfile=...",
        )
    if options.fence == "external" and not (options.pgbouncer or options.fence_command):
        raise SpecificationError(
            "cutover.fence is external, but nothing stops the writers.",
            hint="Give cutover.pgbouncer, or cutover.fence_command with cutover.unfence_command.",
        )
    if options.verify_before_release and not options.proven:
        raise SpecificationError(
            "cutover.verify_before_release needs a fence, and cutover.fence is none: rows that are written to cannot be compared exactly.",
            hint="Choose another fence, or leave it out and compare afterwards (cutover.verify).",
        )
    if bool(options.fence_command) != bool(options.unfence_command):
        raise SpecificationError(
            "cutover.fence_command and cutover.unfence_command belong together: a cutover that is given back must open what it closed."
        )
    _check_template(options)


def _check_template(options: CutoverOptions) -> None:
    if bool(options.release_file) != bool(options.release_template):
        raise SpecificationError("cutover.release_file and cutover.release_template belong together: where to write, and what.")
    if re.search(r"\bpassword\s*=", options.release_template):
        raise SpecificationError(
            "pg_migration.cutover.release_template holds a password.",
            hint="Leave it to the pooler's auth_file or auth_query; the template is kept on the runtime host and shown in diffs.",
        )
    if options.release_file and not options.release_file.startswith("/"):
        raise SpecificationError(f"cutover.release_file is {options.release_file!r}, which is no absolute path.")
    hint = "Known are " + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS) + "; a brace of the text's own is written twice."
    try:
        parts = list(string.Formatter().parse(options.release_template))
    except ValueError as exc:
        raise SpecificationError(f"cutover.release_template cannot be read: {exc}.", hint=hint) from exc
    for dummy, name, form, conversion in parts:
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            shown = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise SpecificationError(f"cutover.release_template has the unknown placeholder {{{shown}}}.", hint=hint)


def check_rollback(spec: MigrationSpec) -> None:
    """What a way back needs of the specification.

    :raises SpecificationError: it is not there.
    """
    if spec.rollback == "prepared" and not (spec.online and spec.cutover.proven):
        raise SpecificationError(
            "pg_migration.rollback is prepared, which needs mode: online and a cutover.fence other than none.",
            hint="Without a fence writes could go to both sides, and no stream could bring them together.",
        )
    if spec.rollback == "prepared":
        check_name(f"{spec.name}-back")


def _refuse_unknown(where: str, data: t.Mapping[str, t.Any], known: t.Collection[str]) -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise SpecificationError(f"{where} has unknown keys: {', '.join(unknown)}.", hint=f"Known keys: {', '.join(sorted(known))}.")


def _choice(key: str, value: t.Any, allowed: t.Sequence[str]) -> str:
    if value not in allowed:
        raise SpecificationError(f"pg_migration.{key} is {value!r}; allowed: {', '.join(allowed)}.")
    return str(value)


def endpoint_from(side: str, data: t.Any) -> Endpoint:
    """The server that ``data`` describes, as the inventory's ``pg_migration.source`` or ``target``; ``side`` is which of them.

    :raises SpecificationError: naming the key that is wrong and what is allowed there.
    """
    types, default_type = (SOURCE_TYPES, "on_premises") if side == "source" else (TARGET_TYPES, "azure_flexible")
    if not isinstance(data, dict):
        raise SpecificationError(f"pg_migration.{side} is missing.", hint=f"Give {side}: {{type, host, port, user, password, sslmode}}.")
    values = {k: v for k, v in data.items() if v is not None and k not in ("side", "tag")}
    _refuse_unknown(f"pg_migration.{side}", values, {f.name for f in dataclasses.fields(Endpoint)})
    for key in ("host", "user"):
        if not values.get(key):
            raise SpecificationError(f"pg_migration.{side}.{key} is missing.", hint="Give it there, or by a service of libpq's.")
    values["type"] = _choice(f"{side}.type", values.get("type", default_type), types)
    _choice(f"{side}.sslmode", values.get("sslmode", "prefer"), SSLMODES)
    return Endpoint(side=side, **_typed(f"{side}", Endpoint, values))


T = t.TypeVar("T")


def _section(name: str, kind: type[T], data: t.Any) -> T:
    values = {k: v for k, v in dict(data or {}).items() if v is not None}
    _refuse_unknown(f"pg_migration.{name}", values, {f.name for f in dataclasses.fields(kind)})  # type: ignore[arg-type]
    return kind(**_typed(name, kind, values))


def _typed(where: str, kind: type, values: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """``values`` converted to the field types of ``kind``: Ansible hands over text where a variable was templated."""
    types = {f.name: f.type for f in dataclasses.fields(kind)}
    converted = {}
    for key, value in values.items():
        try:
            converted[key] = _convert(str(types[key]), value)
        except (TypeError, ValueError):
            raise SpecificationError(f"pg_migration.{where}.{key} is {value!r}, which is no {types[key]}.") from None
    return converted


def _convert(kind: str, value: t.Any) -> t.Any:
    if kind == "bool":
        if isinstance(value, bool):
            return value
        text = str(value).lower()
        if text not in ("true", "false", "yes", "no", "1", "0"):
            raise ValueError(value)
        return text in ("true", "yes", "1")
    if kind.startswith("dict"):
        if not isinstance(value, t.Mapping):
            raise TypeError(value)
        return {str(key): str(item) for key, item in value.items()}
    if kind.startswith("tuple"):
        if isinstance(value, str):
            raise TypeError(value)
        return tuple(str(item) for item in value)
    return {"int": int, "float": float, "str": str}[kind](value)
