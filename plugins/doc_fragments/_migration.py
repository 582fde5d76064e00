# Copyright (c) 2026, the pgops.migration authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that several modules share; the specification is in module_utils/_ansible/options.py."""

    # Where migrations are kept.
    HOST = r"""
options:
  home:
    description:
      - Folder on the runtime host that holds the engine, the record of all migrations, and their working files.
    type: path
    default: /var/lib/pg_migration
  supervisor:
    description:
      - Who keeps the service of a migration running.
      - V(systemd) is the template unit C(pg-migration@.service) that the role P(pgops.migration.pg_migration_runtime#role) installs.
      - V(process) is a detached process, for hosts that systemd has not booted.
      - V(auto) takes V(systemd) where the unit is installed and V(process) elsewhere.
    type: str
    choices: [auto, systemd, process]
    default: auto
requirements:
  - Python >= 3.10
  - psycopg >= 3.1, asyncpg and msgspec in the interpreter that runs the module (the role P(pgops.migration.pg_migration_runtime#role) makes
    a virtual environment with them)
"""

    # A whole migration.
    DOCUMENTATION = r"""
options:
  name:
    description:
      - Name of the migration, letters, digits and hyphens. It is unique among the migrations to one target.
    type: str
    required: true
  option:
    description:
      - What is to be done. V(validate) only checks, V(migrate) skips the checks, V(validate_and_migrate) goes on when no check has failed.
    type: str
    choices: [validate, migrate, validate_and_migrate]
    default: validate_and_migrate
  mode:
    description:
      - With V(offline) the application is stopped first and the migration ends by itself when everything is copied.
      - With V(online) the application goes on; changes are streamed until the cutover.
    type: str
    choices: [offline, online]
    default: offline
  rollback:
    description:
      - With V(prepared) the cutover leaves a stream from the target back to the source, by which the applications can go back without a
        loss.
      - It needs O(mode=online), a fence other than V(none), C(wal_level=logical) on the target, a user there with C(REPLICATION), and a
        user on the source that may write the tables.
    type: str
    choices: [none, prepared]
    default: none
  databases:
    description:
      - Names of the databases. The single name V(all) stands for every user database of the source.
      - More than eight run in sets of eight, one after the other, called O(name)V(-b1), V(-b2) and so on. A set begins when the one before
        it has succeeded; the modules speak of the set that is at work.
    type: list
    elements: str
    required: true
  copy:
    description:
      - How the base copy is made. None of it can make the result differ.
    type: dict
    suboptions:
      jobs:
        description:
          - Number of relays that copy rows at the same time, for each database.
        type: int
        default: 2
      processes:
        description:
          - Number of processes that the relays of a database are shared out among. All relays of a process have one core together.
          - V(0) takes one for each core of the runtime host but one, where there is at least 1 GiB to copy.
          - With O(copy.throttle) all relays run in one process.
        type: int
        default: 0
      index_jobs:
        description:
          - Number of indexes and constraints that are built at the same time, for each database.
        type: int
        default: 2
      chunk_bytes:
        description:
          - Size in bytes of the pieces that large tables are copied in. A piece that was broken off is copied again.
        type: int
        default: 1073741824
      format:
        description:
          - Format of COPY. V(auto) takes binary wherever the types of a table allow it.
        type: str
        choices: [auto, binary, text]
        default: auto
      bindir:
        description:
          - Folder on the runtime host with C(pg_dump) and C(pg_restore). The newest that can be found is taken by default.
        type: path
      schemas:
        description:
          - Schemas of each database that are migrated, names or shell patterns. By default all are.
        type: list
        elements: str
        default: []
      tables:
        description:
          - Tables that are migrated, as V(schema.table), names or shell patterns. By default all are.
          - A foreign key, view, function or trigger that needs a table which is not migrated is left out too, and named. A table that
            needs a type or function of such a schema is refused.
        type: list
        elements: str
        default: []
      exclude:
        description:
          - Schemas or tables that are not migrated, names or shell patterns, as V(schema) or V(schema.table).
        type: list
        elements: str
        default: []
      unlogged_tables:
        description:
          - With V(copy), unlogged tables are copied like others, and online once more in the cutover's pause, because changes of them
            cannot be streamed. With V(empty), the target gets their definitions alone, and the verification leaves them out.
        type: str
        choices: [copy, empty]
        default: copy
      foreign_tables:
        description:
          - With V(keep), the definitions of foreign tables, their servers and user mappings are migrated. With V(exclude), they are left
            out by name, and views and functions that need them are too, as is the extension of their wrapper, which the target then need
            not offer.
        type: str
        choices: [keep, exclude]
        default: keep
      target_schema:
        description:
          - With V(create), the database and its schema are made on the target.
          - With V(present), both are there already, and only rows, the values of sequences and large objects are brought. Each chosen table
            must be there with the source's columns and types, and be empty. Indexes, constraints, triggers, grants and settings stay as
            they are; triggers and foreign keys rest while rows are written. The database is never dropped, neither by a cancel nor by a
            clean-up.
        type: str
        choices: [create, present]
        default: create
      throttle:
        description:
          - Most bytes a second that the relays of a database copy together. V(0) sets no limit.
        type: int
        default: 0
      max_connections:
        description:
          - Most sessions that the copy of a database has on each side, all of them counted. With V(0), half of those that are free.
          - It needs 5 on each side, one more on the source with O(copy.max_standby_lag) or O(copy.probe_query), and two more on a source
            before PostgreSQL 12.
        type: int
        default: 0
      max_standby_lag:
        description:
          - Bytes of WAL that the source's standbys may be behind. From half of it on the copy slows down, and at it the copy rests.
            V(0) does not watch them.
        type: int
        default: 0
      probe_query:
        description:
          - A query that the source answers once a second during the copy. From half of O(copy.probe_limit) on the copy slows down.
        type: str
      probe_limit:
        description:
          - Milliseconds of O(copy.probe_query) at which the copy rests.
        type: int
        default: 1000
      overwrite:
        description:
          - Drop a database of that name that is on the target already when the migration begins, unless somebody is connected to it.
            Otherwise it is refused and not touched.
          - With O(copy.target_schema=present), empty the chosen tables instead, when the migration begins to copy them.
        type: bool
        default: false
  changes:
    description:
      - How changes are streamed. Only for O(mode=online).
    type: dict
    suboptions:
      plugin:
        description:
          - Logical decoding plugin. V(auto) takes wal2json where the source can load it and it loses nothing, and pgoutput elsewhere.
            Where neither can be used, before PostgreSQL 10 or where the user may not publish the tables, it takes test_decoding.
          - V(test_decoding) needs neither a library of others nor the tables' ownership, but a database in UTF-8. The source sends the
            changes of all tables of the database then.
        type: str
        choices: [auto, wal2json, pgoutput, test_decoding]
        default: auto
      acknowledge:
        description:
          - When the source may forget a change, V(spooled) as soon as it is on the runtime host's disk, V(applied) when the target has it.
        type: str
        choices: [spooled, applied]
        default: spooled
      replica_identity:
        description:
          - What to do about tables without a primary key or another replica identity. V(fail) names them in the validation,
            V(set_full) sets C(REPLICA IDENTITY FULL) until the migration ends, V(exclude) streams no changes of them.
        type: str
        choices: [fail, set_full, exclude]
        default: fail
      spool_max_bytes:
        description:
          - Most bytes of changes to hold on the runtime host's disk for one database. Beyond it the stream pauses until the target has
            caught up.
          - A single transaction of the source that is larger may exceed it; the progress says so.
        type: int
        default: 68719476736
      spool_compression:
        description:
          - Whether changes are compressed on the runtime host's disk. V(auto) does it once more than 256 MiB wait there.
        type: str
        choices: [auto, always, never]
        default: auto
      segment_bytes:
        description:
          - Size in bytes of one file of the spool.
        type: int
        default: 67108864
      batch_rows:
        description:
          - Most changes to apply in one transaction, unless a single source transaction has more.
        type: int
        default: 50000
      batch_bytes:
        description:
          - Most bytes of changes to hold in memory for one batch.
        type: int
        default: 33554432
      lanes:
        description:
          - Connections to the target that apply the changes of one database at the same time, 1 to 16.
          - With V(1) the target shows each source transaction wholly or not at all at every moment. With more, a large batch of
            transactions appears in as many parts, whose commits follow each other within moments; rows are exact in any case, also
            after a crash between two of these commits.
        type: int
        default: 2
      heartbeat:
        description:
          - Seconds between two heartbeats, small messages in the source's WAL that keep the latency honest on an idle source.
        type: float
        default: 1.0
      on_ddl:
        description:
          - What to do when a table of the source is created, altered or dropped while changes are streamed. V(fail) ends the migration and
            names the table and the change, V(pause) applies nothing until the DDL is undone or the target's table has been altered alike,
            V(ignore) only says it. Rows of a table created since the start are not streamed in any case.
        type: str
        choices: [fail, pause, ignore]
        default: fail
      failover_slot:
        description:
          - Make the slot one that the source's standbys keep too, so that the stream goes on after a failover. It needs version 17 or later
            and standbys with C(sync_replication_slots).
        type: bool
        default: false
      max_retained_wal_bytes:
        description:
          - Most bytes of WAL that our replication slot may hold on the source. Beyond it the slot is dropped and the migration fails,
            before the source's disk is full. V(0) is no limit.
        type: int
        default: 0
  cutover:
    description:
      - How the switch is made. Only for O(mode=online).
    type: dict
    suboptions:
      databases:
        description:
          - Databases to switch over now, while the others of the migration go on streaming, each with a cutover of its own later. All that
            are left by default. The migration has succeeded when none is left.
        type: list
        elements: str
        default: []
      max_latency:
        description:
          - The cutover is refused while the target is more seconds behind than this.
        type: float
        default: 5.0
      max_pause:
        description:
          - Most seconds without writes. When they are over, the source is writable again and the cutover is given back.
        type: float
        default: 30.0
      max_transaction_age:
        description:
          - The cutover is refused while somebody's transaction on the source is older than so many seconds, because the fence would have to
            end it or wait for it. V(0) is no limit.
        type: float
        default: 300.0
      fence:
        description:
          - How writers are kept out of the source, and how that is proven.
          - V(revoke_connect) takes the right to connect away and ends the sessions until none is left.
          - V(locks) locks every table against writers, who wait; only when the target is complete the source is closed as with
            V(revoke_connect). A cutover that is given back has ended no session.
          - V(read_only) makes sessions read-only by default, so readers stay at the source. It holds back no session that insists on
            writing; so the cutover is given back when anything was committed behind its marker.
          - V(external) leaves the stopping to O(cutover.pgbouncer) or O(cutover.fence_command) and proves that sessions that are left do
            nothing and that nothing was committed behind the marker.
          - V(none) trusts that the application has been stopped.
        type: str
        choices: [revoke_connect, read_only, locks, external, none]
        default: revoke_connect
      force:
        description:
          - Cut over in spite of O(cutover.max_latency).
        type: bool
        default: false
      release:
        description:
          - Command to run on the runtime host, as a list of words, at the moment when the target may be written.
        type: list
        elements: str
        default: []
      fence_command:
        description:
          - Command to run on the runtime host before the fence, as a list of words. It stops the writers, and has succeeded when they are.
          - It needs O(cutover.unfence_command).
        type: list
        elements: str
        default: []
      unfence_command:
        description:
          - Command to run on the runtime host, as words, when the cutover was given back. It lets the writers go on at the source.
        type: list
        elements: str
        default: []
      rollback_release:
        description:
          - Command to run on the runtime host, as a list of words, at the moment when a rollback lets the source be written again.
        type: list
        elements: str
        default: []
      release_file:
        description:
          - File on the runtime host that is written when the target may be written, before O(cutover.release) is run, and once more when a
            rollback lets the source be written again. PgBouncer's C(%include) reads such a file.
          - It holds O(cutover.release_template) for each database of the migration, those that are not switched over yet with the source's
            address. It must exist, and is replaced as a whole by a file with the same permissions.
        type: path
      release_template:
        description:
          - The text for one database, in which C({host}), C({port}) and C({dbname}) stand for where it is found. A brace of the text's own
            is written twice.
          - It needs O(cutover.release_file).
        type: str
      pgbouncer:
        description:
          - Connection strings of the admin consoles of the PgBouncers between application and source, such as
            C(host=10.0.0.7 port=6432 user=admin dbname=pgbouncer passfile=/etc/pg_migration/pgbouncer.pass). They may not hold a password.
          - They are paused before the fence, so that clients wait instead of being refused. After O(cutover.release), which is to change
            their configuration, C(RELOAD) and C(RESUME) let the clients go on at the target.
        type: list
        elements: str
        default: []
      pgbouncer_databases:
        description:
          - What the databases to pause are called in PgBouncer, where the names differ from O(databases).
        type: list
        elements: str
        default: []
      verify:
        description:
          - Compare every row of both sides as of the cutover, after the release.
        type: bool
        default: true
      verify_before_release:
        description:
          - Compare every row within the pause, before anybody is led to the target. What differs, or takes longer than
            O(cutover.max_pause), gives the cutover back.
        type: bool
        default: false
  globals:
    description:
      - Roles, memberships and settings, which belong to the whole server.
    type: dict
    suboptions:
      enabled:
        description:
          - Bring them to the target before the schema.
        type: bool
        default: true
      superuser_policy:
        description:
          - Superusers are left out with V(remove), and become ordinary roles with V(demote).
        type: str
        choices: [remove, demote]
        default: remove
      exclude:
        description:
          - Roles to leave out.
        type: list
        elements: str
        default: []
      passwords:
        description:
          - Carry the stored verifiers over where the source lets them be read. Otherwise the roles that need a password are named.
        type: bool
        default: true
      tablespaces:
        description:
          - Tablespace of the source to the tablespace of the target that stands for it. Tables, indexes and databases that lie in one are
            created in the other, which must exist. What lies in any other is created in the target's default tablespace, and named.
        type: dict
        default: {}
      apply_parameters:
        description:
          - Set the target's server parameters like the source's, by C(ALTER SYSTEM) and a reload, where they depend neither on the server's
            size nor on its place and need no restart. It takes a superuser, or the grants of C(ALTER SYSTEM) (PostgreSQL 15 and later) and
            of C(pg_reload_conf). What is left, and everything on a provider's server, is named with the command that sets it.
          - Nothing is copied by default. C(ALTER SYSTEM RESET) takes one back.
        type: bool
        default: false
  monitor:
    description:
      - Who is told how far the migration is, besides the one who asks.
    type: dict
    suboptions:
      prometheus_dir:
        description:
          - Folder on the runtime host that the textfile collector of node_exporter reads. The service keeps a file of metrics there,
            C(pg_migration_KEY.prom). It must be able to write to it. No such file is written by default.
        type: path
  checks:
    description:
      - How strict the validation is.
    type: dict
    suboptions:
      runtime_warn:
        description:
          - The runtime host's CPUs and memory as a share of the source's, where those are given, below which the validation warns.
        type: float
        default: 1.0
      runtime_fail:
        description:
          - The same share below which it fails.
        type: float
        default: 0.25
      region_policy:
        description:
          - What a pair of regions of Azure is between which Azure does not migrate. For other servers nothing is looked at.
        type: str
        choices: [warn, fail, 'off']
        default: warn
  limits:
    description:
      - How many seconds a migration may take; V(0) is no limit. When one is reached, the migration is Failed and says which. What is copied
        and the replication slot stay, so that it goes on when it is played again with a higher limit.
    type: dict
    suboptions:
      max_prerequisites:
        description:
          - Seconds for the first step, in which both servers have to answer.
        type: float
        default: 180.0
      max_copy:
        description:
          - Seconds from the beginning of the base copy until the rows of every database are on the target.
        type: float
        default: 0.0
      max_wait:
        description:
          - Seconds from the end of the base copy until the cutover, for O(mode=online). A cutover that is under way is not broken off.
        type: float
        default: 0.0
"""
