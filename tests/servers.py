# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Real PostgreSQL servers for tests, the demo and the benchmarks: temporary clusters on free ports of 127.0.0.1.

A server refuses to run as root; started by root, it runs as the user ``postgres``. Over TCP every role needs its password
(scram), so a wrong one is really refused. Several runs may share one machine: every server has its own folder and port, ends
with the process that started it (unless ``outlive``), and what a killed run left behind is removed by the next.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import functools
import json
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

import psycopg
from psycopg import sql

FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "120",
    "max_wal_size": "2GB",
    "shared_buffers": "128MB",
    "wal_level": "replica",
    "log_line_prefix": "%m [%p] %u@%d %a ",
    "logging_collector": "off",
}
"""What every server gets unless ``settings`` says otherwise; ``fsync`` off, because no test here pulls the machine's plug."""

LOGICAL = {
    "wal_level": "logical",
    "max_prepared_transactions": "10",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "output_plugin_libraries": "pgoutput, test_decoding, wal2json",
}
"""What makes a server a source. A parameter that the server does not know is left out."""

MAJORS = Path(__file__).resolve().parent.parent / ".work" / "postgres"
"""Where ``scripts/majors`` puts PostgreSQL of other major versions: one folder each, with ``bin/``."""

PREFIX = "pgm-servers-"
STARTED = 60.0
"""Seconds that a server may take to answer."""


def bindirs() -> list[Path]:
    """Folders with PostgreSQL's programs on this machine, newest major first; ``PG_MIGRATION_BINDIR`` (a list with ``:``) comes
    before, what ``scripts/majors`` has fetched after."""
    asked = [Path(p) for p in os.environ.get("PG_MIGRATION_BINDIR", "").split(":") if p]
    found = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    found.sort(key=lambda p: int(re.sub(r"\D.*", "", p.parent.name) or 0), reverse=True)
    others = sorted(p.parent for p in MAJORS.glob("*/bin/postgres"))
    return list(dict.fromkeys([*asked, *found, *others]))


@functools.cache
def installations() -> dict[int, Path]:
    """Major version to the folder of its programs, of all of :func:`bindirs`, oldest first; the first folder of a version counts."""
    found: dict[int, Path] = {}
    for folder in bindirs():
        shown = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False, cwd="/").stdout
        number = re.search(r"\) (\d+)", shown)
        if number:
            found.setdefault(int(number[1]), folder)
    return dict(sorted(found.items()))


def program(name: str, least: int = 0) -> Path | None:
    """The client program ``name`` of major version ``least`` or later, the oldest such; None: not on this machine."""
    return next((folder / name for major, folder in installations().items() if major >= least and (folder / name).exists()), None)


def has_wal2json(bindir: Path) -> bool:
    """Does the installation at ``bindir`` have wal2json?"""
    pg_config = bindir / "pg_config"
    folders = [bindir.parent / "lib", bindir.parent / "lib" / "postgresql"]
    if pg_config.exists():
        folders.append(
            Path(subprocess.run([pg_config, "--pkglibdir"], capture_output=True, text=True, check=False).stdout.strip() or "/nonexistent")
        )
    return any((folder / "wal2json.so").exists() for folder in folders)


@functools.cache
def server_user() -> str | None:
    """The user that servers run as when we are root; None: ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def identity() -> dict[str, t.Any]:
    """Keyword arguments for :mod:`subprocess` that run a program as :func:`server_user`."""
    user = server_user()
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def reachable(folder: Path) -> bool:
    """May :func:`server_user` walk into ``folder``?"""
    return server_user() is None or all(p.stat().st_mode & stat.S_IXOTH for p in (folder, *folder.parents) if p.exists())


def base_folder() -> Path:
    """Where temporary clusters are put: ``TMPDIR`` where the server's user may go, else ``/var/tmp``."""
    wanted = Path(os.environ.get("TMPDIR") or "/var/tmp")
    return wanted if wanted.is_dir() and reachable(wanted) else Path("/var/tmp")


def sweep() -> None:
    """Remove clusters whose run is gone."""
    for folder in base_folder().glob(PREFIX + "*"):
        match = re.fullmatch(re.escape(PREFIX) + r"(\d+)-.*", folder.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            for pidfile in folder.glob("*/data/postmaster.pid"):
                with contextlib.suppress(OSError, ValueError):
                    pid = int(pidfile.read_text().split()[0])
                    if os.readlink(f"/proc/{pid}/cwd") == str(pidfile.parent.resolve()):  # the number may be another server's by now
                        os.kill(pid, signal.SIGQUIT)
            shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def run_folder() -> Path:
    """The folder of this process's clusters, removed at exit."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base_folder()))
    hand_over(folder)
    return folder


def hand_over(folder: Path) -> None:
    """Give ``folder`` to :func:`server_user`."""
    user = server_user()
    if user is not None:
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)


def free_port() -> int:
    """A TCP port on which nobody listens, below those that outgoing connections get."""
    for dummy in range(200):
        port = random.randrange(17000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port found")


def die_with_parent() -> None:
    """In the child: a fast shutdown when the process that started the server is gone."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGINT))


@dataclasses.dataclass
class Server:
    """One PostgreSQL cluster. ``folder`` holds ``data/``, the log and (``outlive``) ``server.json`` for :meth:`attach`."""

    name: str
    folder: Path
    bindir: Path
    settings: dict[str, str]
    superuser_password: str = dataclasses.field(repr=False)
    port: int = 0
    host: str = "127.0.0.1"
    superuser: str = "postgres"
    outlive: bool = False
    pid: int = 0
    _process: subprocess.Popen[bytes] | None = dataclasses.field(default=None, repr=False)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / "server.log"

    @functools.cached_property
    def version(self) -> int:
        """The server's version as a number (``150020``)."""
        with self.connect() as conn:
            return conn.info.server_version

    @functools.cached_property
    def major(self) -> int:
        """The major version, read from the data directory."""
        return int((self.data / "PG_VERSION").read_text().split(".")[0])

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of :attr:`bindir` as the server's user; an error carries its output."""
        command = [str(self.bindir / words[0]), *map(str, words[1:])]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, stdin=subprocess.DEVNULL, check=False, **identity())
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def create(self) -> None:
        """``initdb``, passwords over TCP, settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        hand_over(self.folder)
        pwfile = self.folder / "pwfile"
        pwfile.write_text(self.superuser_password + "\n")
        pwfile.chmod(0o600)
        hand_over(pwfile)
        common = ["-U", self.superuser, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--pwfile", pwfile]
        self.run("initdb", "-D", self.data, "--auth-local=trust", "--auth-host=scram-sha-256", *common)
        pwfile.unlink()
        self.configure({**FAST, **self.settings})

    def configure(self, settings: t.Mapping[str, str]) -> None:
        """Append ``settings`` to postgresql.conf (those that this version knows); effective after a reload or restart."""
        known = {}
        for key, value in settings.items():
            probe = [str(self.bindir / "postgres"), "-D", str(self.data), "-C", key]
            if (
                key != "output_plugin_libraries"
                or not subprocess.run(probe, capture_output=True, cwd="/", check=False, **identity()).returncode
            ):
                known[key] = value
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("".join(f"{key} = '{value}'\n" for key, value in known.items()))

    def start(self) -> None:
        """Start and wait until it answers; at the first start a port is chosen.

        :raises RuntimeError: with the end of the log.
        """
        chosen = self.port
        for dummy in range(5):
            self.port = chosen or free_port()
            if self._launch():
                break
            if chosen or "could not bind" not in self._log_tail():
                raise RuntimeError(f"server {self.name} does not start:\n{self._log_tail()}")
        if self.outlive:
            self._remember()

    def _launch(self) -> bool:
        command = [
            str(self.bindir / "postgres"),
            "-D",
            str(self.data),
            "-p",
            str(self.port),
            "-k",
            str(self.folder),
            "-c",
            f"listen_addresses={self.host}",
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=None if self.outlive else die_with_parent,
                **identity(),
            )
        self.pid = self._process.pid
        deadline = time.monotonic() + STARTED
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return True
            time.sleep(0.05)
        raise RuntimeError(f"server {self.name} does not answer:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def _remember(self) -> None:
        keys = ("name", "settings", "superuser_password", "port", "host", "superuser", "pid")
        state = self.folder / "server.json"
        state.touch(0o600)
        state.write_text(json.dumps({**{k: getattr(self, k) for k in keys}, "bindir": str(self.bindir)}))

    @classmethod
    def attach(cls, folder: Path) -> Server:
        """The server that another process left running in ``folder``."""
        state = json.loads((folder / "server.json").read_text())
        return cls(folder=folder, outlive=True, **{**state, "bindir": Path(state["bindir"])})

    @property
    def running(self) -> bool:
        """Is its postmaster there?"""
        if self._process is not None:
            return self._process.poll() is None
        return bool(self.pid) and Path(f"/proc/{self.pid}").exists() and (self.data / "postmaster.pid").exists()

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``smart``, ``fast`` or ``immediate``; whoever does not end within half a minute is killed."""
        if not self.running:
            return
        os.kill(self.pid, {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        deadline = time.monotonic() + 30
        while self.running and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.2)

    def restart(self) -> None:
        """Fast stop and start on the same port."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """End it without a checkpoint; :meth:`start` has to recover."""
        self.stop("immediate")

    def reload(self) -> None:
        """Read the configuration again."""
        os.kill(self.pid, signal.SIGHUP)
        time.sleep(0.2)

    def drop(self) -> None:
        """Stop it and remove its files."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, dbname: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """libpq's connection string."""
        secret = password if password is not None else (self.superuser_password if user in (None, self.superuser) else "")
        return psycopg.conninfo.make_conninfo(
            host=self.host, port=self.port, dbname=dbname, user=user or self.superuser, password=secret or None, connect_timeout=10
        )

    def connect(self, dbname: str = "postgres", user: str | None = None, password: str | None = None) -> psycopg.Connection[t.Any]:
        """A session in autocommit, as the superuser unless ``user`` and ``password`` say otherwise."""
        return psycopg.connect(self.dsn(dbname, user, password), autocommit=True)

    def execute(self, statement: str, dbname: str = "postgres") -> list[tuple[t.Any, ...]]:
        """Run ``statement`` as superuser and give its rows (none where it has no result)."""
        with self.connect(dbname) as conn:
            cursor = conn.execute(t.cast(t.Any, statement))
            return cursor.fetchall() if cursor.description else []

    def create_role(self, name: str, password: str = "", options: str = "") -> None:
        """``CREATE ROLE name LOGIN options PASSWORD ...``; without a password the role cannot log in."""
        login = sql.SQL("LOGIN PASSWORD {}").format(sql.Literal(password)) if password else sql.SQL("NOLOGIN")
        with self.connect() as conn:
            conn.execute(sql.SQL("CREATE ROLE {} {} {}").format(sql.Identifier(name), login, sql.SQL(t.cast(t.Any, options))))

    def create_database(self, name: str, owner: str = "postgres", options: str = "") -> None:
        """``CREATE DATABASE name OWNER owner options``."""
        with self.connect() as conn:
            conn.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} {}").format(
                    sql.Identifier(name), sql.Identifier(owner), sql.SQL(t.cast(t.Any, options))
                )
            )

    def drop_database(self, name: str) -> None:
        """Remove a database with the slots, subscriptions and sessions that hang on it; no error where it is absent."""
        with self.connect() as conn:
            exists = conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if not exists:
            return
        with self.connect(name) as conn:
            for (subscription,) in conn.execute(
                "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()"
            ).fetchall():
                quoted = sql.Identifier(subscription)
                for step in ("DISABLE", "SET (slot_name = NONE)"):
                    conn.execute(sql.SQL("ALTER SUBSCRIPTION {} {}").format(quoted, sql.SQL(t.cast(t.Any, step))))
                conn.execute(sql.SQL("DROP SUBSCRIPTION {}").format(quoted))
        with self.connect() as conn:
            for dummy in range(50):
                conn.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = %s AND active", [name])
                with contextlib.suppress(psycopg.errors.ObjectInUse):
                    conn.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [name])
                    break
                time.sleep(0.1)
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", [name])
            force = sql.SQL("WITH (FORCE)" if self.major >= 13 else "")
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} {}").format(sql.Identifier(name), force))


def start_server(
    name: str, *, settings: dict[str, str] | None = None, bindir: Path | None = None, folder: Path | None = None, outlive: bool = False
) -> Server:
    """A new cluster that answers. ``settings`` over :data:`FAST`; ``bindir``: the newest by default; ``folder``: a temporary one."""
    if bindir is None:
        available = bindirs()
        if not available:
            raise RuntimeError("no PostgreSQL server on this machine; scripts/test and scripts/demo install one")
        bindir = available[0]
    place = folder or run_folder() / f"{name}-{secrets.token_hex(3)}"
    server = Server(name, place, bindir, dict(settings or {}), superuser_password=secrets.token_urlsafe(12), outlive=outlive)
    server.create()
    server.start()
    if not outlive:
        atexit.register(server.drop)
    return server


@atexit.register
def _remove_run_folder() -> None:
    if run_folder.cache_info().currsize:
        shutil.rmtree(run_folder(), ignore_errors=True)
