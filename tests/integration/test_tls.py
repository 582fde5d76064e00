# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""TLS as the endpoint asks, on every kind of connection: psycopg's, asyncpg's for the copy, and the walsender's.

The certificates are made here: an authority, the servers' certificate for ``localhost``, and an authority that signed nothing.
"""

from __future__ import annotations

import datetime
import shutil
import time
import typing as t
from pathlib import Path

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import ConnectionFailed
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.session import connect
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.walstream import WalStream
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from host import Host
from pair import OWNER, describe, make_source, make_target

Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def sign(name: str, issuer: Signed | None = None) -> Signed:
    """A certificate for the host ``name``, or an authority of that name if there is no ``issuer``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer[0].subject if issuer else subject).public_key(key.public_key())
    )
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
    builder = builder.not_valid_after(now + datetime.timedelta(30)).add_extension(x509.BasicConstraints(issuer is None, None), True)
    if issuer:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def store(folder: Path, name: str, signed: Signed) -> Path:
    """Write certificate and key; the path of the certificate."""
    path = folder / f"{name}.crt"
    path.write_bytes(signed[0].public_bytes(serialization.Encoding.PEM))
    key = folder / f"{name}.key"
    key.write_bytes(signed[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    key.chmod(0o600)
    return path


class Pair(t.NamedTuple):
    """Two servers that take remote sessions over TLS alone, and the certificates of the authority and of a foreign one."""

    source: lab.Server
    target: lab.Server
    authority: Path
    foreign: Path


def secure(server: lab.Server, authority: Signed) -> None:
    """Give it a certificate for ``localhost``; sessions without TLS are refused for all but its superuser."""
    store(server.data, "server", sign("localhost", authority))
    for name in ("server.crt", "server.key"):
        shutil.chown(server.data / name, lab.server_user())
    rules = (server.data / "pg_hba.conf").read_text()
    (server.data / "pg_hba.conf").write_text(f"host all {server.superuser} all trust\nhostnossl all all all reject\n{rules}")
    server.configure({"ssl": "on"})
    server.restart()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Pair]:
    folder, authority = tmp_path_factory.mktemp("tls"), sign("the authority")
    source, target = make_source(), make_target()
    for server in (source, target):
        secure(server, authority)
    yield Pair(source, target, store(folder, "authority", authority), store(folder, "foreign", sign("a foreigner")))
    for server in (source, target):
        server.drop()


def spec_of(pair: Pair, database: str, **endpoint: t.Any) -> MigrationSpec:
    """Both ends with ``endpoint``."""
    return MigrationSpec.from_dict(describe(pair.source, pair.target, "tls", [database], source=endpoint, target=endpoint))


def opened(spec: MigrationSpec) -> None:
    """A session and a walsender."""
    connect(spec.source, "postgres").close()
    WalStream(spec.source, "postgres").close()


@pytest.mark.parametrize(
    "sslmode, host, trusted, refused",
    [
        ("require", "127.0.0.1", "", ""),
        ("verify-ca", "127.0.0.1", "authority", ""),
        ("verify-full", "localhost", "authority", ""),
        ("verify-ca", "localhost", "foreign", "tls"),
        ("verify-full", "127.0.0.1", "authority", "tls"),
        ("disable", "127.0.0.1", "", "hba"),
    ],
)
def test_modes(pair: Pair, sslmode: str, host: str, trusted: str, refused: str) -> None:
    """What the mode asks is asked of each driver: an authority that is not trusted and a wrong name are refused, and said to be TLS's."""
    more = {"sslrootcert": str(getattr(pair, trusted))} if trusted else {}
    spec = spec_of(pair, "postgres", sslmode=sslmode, host=host, **more)
    if not refused:
        opened(spec)
        return
    for call in (lambda: connect(spec.source, "postgres"), lambda: WalStream(spec.source, "postgres")):
        with pytest.raises(ConnectionFailed) as caught:
            call()
        assert caught.value.details["reason"] == refused, str(caught.value)


def test_migration(pair: Pair, host: Host) -> None:
    """A whole one; the walsender and every other session of ours use TLS."""
    source, database = pair.source, "shop"
    source.create_database(database, OWNER)
    source.execute(f"CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t OWNER TO {OWNER}", database)
    source.execute("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 50000) g", database)
    spec = spec_of(pair, database, sslmode="verify-full", host="localhost", sslrootcert=str(pair.authority))
    host.manager.start(spec)
    host.until_waiting(spec.key)
    plain = (
        "SELECT a.application_name FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)"
        " WHERE a.usename IN ('migrator', 'admin') AND NOT s.ssl"
    )
    for server in (source, pair.target):
        assert server.execute(plain) == []
    senders = source.execute("SELECT s.ssl FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid)")
    assert senders == [(True,)]
    source.execute(
        "INSERT INTO t SELECT g, repeat(g::text, 50) FROM generate_series(50001, 90000) g; DELETE FROM t WHERE id % 7 = 0", database
    )
    host.cut_over(spec.key)
    digest = "SELECT count(*), sum(hashtext(t::text)) FROM t"
    deadline = time.monotonic() + 60
    while source.execute(digest, database) != pair.target.execute(digest, database):
        assert time.monotonic() < deadline
        time.sleep(0.1)
