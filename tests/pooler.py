# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A PgBouncer between an application and the source, from Debian's package, and the part of its configuration that leads elsewhere."""

from __future__ import annotations

import pwd
import shutil
import signal
import subprocess
import time
import typing as t
from pathlib import Path

import pair
import psycopg
import servers as lab

START_SECONDS = 20.0


def find() -> str | None:
    """The program, None where it is not installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


LINE = "{dbname} = host={host} port={port} dbname={dbname}\n"
"""The part of its configuration for one database, as ``cutover.release_template`` has it."""


class Pooler:
    """One PgBouncer in transaction mode; its databases are in a file that its configuration includes.

    :ivar places: that file, which leads to the source as ``app``.
    :ivar there: a file like it that leads to the target as ``admin``.
    :ivar admin: connection string of its console.
    """

    def __init__(self, folder: Path, database: str, source: lab.Server, target: lab.Server, pool: int = 50) -> None:
        program = find()
        if program is None:
            raise RuntimeError("pgbouncer is not installed")
        self.database, self.port = database, lab.free_port()
        config, self.places, self.there = folder / "pgbouncer.ini", folder / "places.ini", folder / "there.ini"
        self.users, there = folder / "users.txt", pair.PASSWORDS[target.port]
        texts = {
            config: self._config(folder, pool),
            self.users: f'"{pair.OWNER}" "{pair.PASSWORDS[source.port]}"\n"pgbouncer" ""\n"viewer" ""\n',
            self.places: LINE.format(host=source.host, port=source.port, dbname=database),
            self.there: LINE.format(host=target.host, port=target.port, dbname=database).strip() + f" user=admin password={there}\n",
        }
        for path, text in texts.items():
            path.touch(0o600)
            path.write_text(text)
        user = lab.server_user()
        owner = pwd.getpwnam(user) if user else None
        for path in (folder, *folder.iterdir()) if owner else ():
            shutil.chown(path, owner.pw_uid, owner.pw_gid)
        self.admin = f"host=127.0.0.1 port={self.port} user=pgbouncer dbname=pgbouncer"
        with (folder / "pgbouncer.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, *(["-u", user] if user else []), str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait()

    def _config(self, folder: Path, pool: int) -> str:
        return (
            f"[databases]\n%include {self.places}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = trust\n"
            f"auth_file = {self.users}\n"
            f"admin_users = pgbouncer\nstats_users = viewer\npool_mode = transaction\ndefault_pool_size = {pool}\nmax_client_conn = 200\n"
            f"server_login_retry = 1\nlogfile = {folder}/pooler.log\n"
        )

    def _wait(self) -> None:
        limit = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("SHOW VERSION")
                return
            except psycopg.Error:
                if time.monotonic() > limit or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def ask(self, statement: str) -> list[dict[str, str]]:
        """Have its console do ``statement``; rows by column."""
        with psycopg.connect(self.admin, autocommit=True) as conn:
            result = conn.pgconn.exec_(statement.encode())
            names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
            values = [
                [(result.get_value(row, column) or b"").decode() for column in range(result.nfields)] for row in range(result.ntuples)
            ]
        return [dict(zip(names, row, strict=True)) for row in values]

    def place(self) -> dict[str, t.Any]:
        """Where it leads the database to: ``host``, ``port``, ``paused`` as it says them."""
        return next(row for row in self.ask("SHOW DATABASES") if row["name"] == self.database)

    @property
    def paused(self) -> bool:
        """Do clients wait?"""
        return str(self.place()["paused"]) == "1"

    def dsn(self) -> str:
        """What an application connects with."""
        return f"postgresql://{pair.OWNER}@127.0.0.1:{self.port}/{self.database}"

    def close(self) -> None:
        """End it at once, whoever is connected."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
