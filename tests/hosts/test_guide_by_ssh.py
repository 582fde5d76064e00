# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""docs/guide.md word for word on three hosts, by SSH as a user with sudo, while an application writes; the control node dies in between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import typing as t

import pytest
import servers
from lab import rooms
from lab.able import Unable
from lab.databases import psql
from lab.keys import ssh
from lab.place import REPO, Place

KEY = "pg-migration@*"
"""The unit of the migration's service, whatever its key."""

UNIT = "postgresql@15-main.service"
"""The source's server, as Debian's packages name it."""


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Place]:
    """A lab of this run's own, or the tests are skipped with the reason."""
    rooms.sweep()
    name = f"guide-{os.getpid()}"
    try:
        yield rooms.up(name)
    except Unable as error:
        pytest.skip(f"no lab here: {error}")
    rooms.down(name)


def guide(playbook: str) -> list[str]:
    """The command of docs/guide.md that plays ``playbook``, without a comment; the test fails where the guide has it no more."""
    found = re.search(rf"^    (ansible-playbook pgops\.migration\.{playbook} -i inventory)\s*$", (REPO / "docs/guide.md").read_text(), re.M)
    assert found, f"docs/guide.md does not say how to play {playbook}"
    return found[1].split()


def begin(lab: Place, playbook: str, *more: str) -> subprocess.Popen[str]:
    """Play what the guide says (and ``more`` options) in the folder of the lab."""
    words = [lab.inventory.name if word == "inventory" else word for word in guide(playbook)] + list(more)
    words[0] = os.path.join(os.path.dirname(sys.executable), words[0])
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(REPO / ".work" / "link"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
    }
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=lab.folder, env=environment,
        start_new_session=True, preexec_fn=servers.die_with_parent,
    )  # fmt: skip


def play(lab: Place, playbook: str, *more: str) -> tuple[str, int]:
    """Play it to its good end: what it said, and the sum of ``changed=``."""
    process = begin(lab, playbook, *more)
    text, dummy = process.communicate(timeout=400)
    assert process.returncode == 0, f"{playbook}: {text[-5000:]}"
    return text, sum(int(number) for number in re.findall(r"changed=(\d+)", text.partition("PLAY RECAP")[2]))


def service(lab: Place) -> str:
    """The process of the migration's service on the runtime host; empty: there is none."""
    if lab.init != "systemd":
        return ssh(lab, "runtime", "pgrep -u pg_migration -f engine/current | head -1", check=False).stdout.strip()
    said = ssh(lab, "runtime", f"systemctl list-units --plain --no-legend --state=running '{KEY}' | cut -d' ' -f1").stdout.split()
    return ssh(lab, "runtime", f"systemctl show -P MainPID {said[0]}").stdout.strip() if said else ""


def content(lab: Place, host: str) -> str:
    """All rows of the database ``shop``, as a digest for each table."""
    query = "SELECT md5(string_agg(x::text, '|' ORDER BY x.id)), count(*) FROM {} x;"
    return psql(lab, host, "".join(query.format(table) for table in ("public.customer", "public.purchase")), "shop")


@pytest.fixture
def application(lab: Place) -> t.Iterator[subprocess.Popen[str]]:
    """Somebody who buys ten times a second, and notes each purchase that the source has confirmed."""
    script = f"export PGPASSWORD='{lab.passwords['app']}'\npsql -XqAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -U app_owner shop <<'SQL'\n"
    script += "INSERT INTO public.purchase (customer, amount) VALUES (1, 9.99) RETURNING id \\watch 0.1\nSQL\n"
    words = ["ssh", "-F", str(lab.keys / "config"), "source", "bash -s"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdin
    process.stdin.write(script)
    process.stdin.close()
    process.stdin = None
    yield process
    process.kill()
    process.wait()


def test_hosts_are_made_ready(lab: Place) -> None:
    """Provision the runtime host: tools, Python, libraries, folder, unit. Prepare the source, which has to be restarted for it; that
    provisions the runtime host again, and nothing is left to do there."""
    assert play(lab, "provision_runtime")[1] > 0
    python = "/var/lib/pg_migration/venv/bin/python -c 'import psycopg, asyncpg, msgspec; print(psycopg.__version__)'"
    assert ssh(lab, "runtime", f"pg_dump --version && sudo -u pg_migration {python}").stdout.splitlines()[1].startswith("3.")
    if lab.init == "systemd":
        assert "pg_migration" in ssh(lab, "runtime", "systemctl cat pg-migration@.service").stdout
    assert ssh(lab, "runtime", "getent passwd pg_migration").stdout.strip().endswith(":/usr/sbin/nologin")
    said, changed = play(lab, "prepare_source")
    assert changed > 0 and re.search(r"^runtime .* changed=0 ", said, re.M)
    assert psql(lab, "source", "SHOW wal_level").strip() == "logical"


def test_the_unit_that_was_found_is_restarted(lab: Place) -> None:
    """More slots need a restart. The inventory names neither unit nor command: the role finds the unit, systemd restarts it, and the
    server that answers is its main process and another one than before."""
    if lab.init != "systemd":
        pytest.skip("hosts without systemd have no units")
    assert not re.search("pg_migration_source_(service|restart_command)", lab.inventory.read_text())

    def look() -> tuple[str, str, int]:
        unit = ssh(lab, "source", f"systemctl show -P MainPID {UNIT}").stdout.strip()
        server = psql(lab, "source", "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1); SHOW max_replication_slots").split()
        return unit, server[0], int(server[1])

    before = look()
    play(lab, "prepare_source", "-e", "pg_migration_source_margin=20")
    after = look()
    assert before[0] == before[1] != after[0] == after[1] and after[2] > before[2]


def test_control_node_dies_and_nothing_is_lost(lab: Place, application: subprocess.Popen[str]) -> None:
    """Validate; migrate, and the control node is killed; migrate again watches the same service and changes nothing; verify; cut over.
    Both servers have the same rows then, all purchases that were confirmed among them."""
    assert "Overall" in play(lab, "validate")[0]
    control = begin(lab, "migrate")
    limit = time.monotonic() + 200
    while not (pid := service(lab)) and control.poll() is None and time.monotonic() < limit:
        time.sleep(0.2)
    os.killpg(control.pid, signal.SIGKILL)
    assert pid, control.communicate()[0][-3000:]

    said, changed = play(lab, "migrate")
    assert changed == 0 and "WaitingForCutoverTrigger" in said
    assert service(lab) == pid
    assert "equal, " in play(lab, "verify")[0]
    play(lab, "cutover")
    bought = [int(line) for line in application.communicate(timeout=60)[0].split() if line.isdigit()]
    assert len(bought) > 50
    assert content(lab, "source") == content(lab, "target")
    there = psql(lab, "target", "SELECT id FROM public.purchase", "shop").split()
    assert not set(bought) - set(map(int, there))
