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
from byssh import Played, begin, content, databases, describe, play, restart, traces
from lab import rooms
from lab.able import Unable
from lab.databases import psql
from lab.keys import ssh
from lab.place import REPO, Place
from pages import commands, options

KEY = "pg-migration@*"
"""The unit of the migration's service, whatever its key."""

LOST = "rm -rf /var/lib/pg_migration/migrations /var/lib/pg_migration/catalogue.db*"
"""How a runtime host loses what it knows."""

UNIT = "postgresql@15-main.service"
"""The source's server, as Debian's packages name it."""

PAGE = REPO / "docs" / "guide.md"
COMMANDS, OPTIONS = commands(PAGE), options(PAGE)
typed: set[str] = set()
"""Commands and options of the page that were played."""


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


def guide(playbook: str, more: str = "", option: str = "") -> str:
    """The page's command that plays ``playbook`` (with ``more`` words), and the ``option`` that the page names for it; the test fails where
    the page has it no more."""
    command = f"ansible-playbook pgops.migration.{playbook} -i inventory {more}".strip()
    assert command in COMMANDS, f"docs/guide.md does not say {command}"
    assert not option or option in OPTIONS, f"docs/guide.md does not name {option}"
    typed.update({command, option})
    return f"{command} {option}".strip()


def follow(lab: Place, playbook: str, more: str = "", option: str = "", good: bool = True) -> Played:
    """Play what the page says."""
    return play(lab, guide(playbook, more, option), good)


def on_runtime(lab: Place, words: str = "") -> str:
    """What the page's command for a terminal says on the runtime host."""
    command = f"sudo /var/lib/pg_migration/pgm-status {words}".strip()
    assert command in COMMANDS
    typed.add(command)
    return ssh(lab, "runtime", command, timeout=400).stdout


def service(lab: Place) -> str:
    """The process of the migration's service on the runtime host; empty: there is none."""
    if lab.init != "systemd":
        return ssh(lab, "runtime", "pgrep -u pg_migration -f engine/current | head -1", check=False).stdout.strip()
    said = ssh(lab, "runtime", f"systemctl list-units --plain --no-legend --state=running '{KEY}' | cut -d' ' -f1").stdout.split()
    return ssh(lab, "runtime", f"systemctl show -P MainPID {said[0]}").stdout.strip() if said else ""


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
    assert follow(lab, "provision_runtime").changed > 0
    python = "/var/lib/pg_migration/venv/bin/python -c 'import psycopg, asyncpg, msgspec; print(psycopg.__version__)'"
    assert ssh(lab, "runtime", f"pg_dump --version && sudo -u pg_migration {python}").stdout.splitlines()[1].startswith("3.")
    if lab.init == "systemd":
        assert "pg_migration" in ssh(lab, "runtime", "systemctl cat pg-migration@.service").stdout
    assert ssh(lab, "runtime", "getent passwd pg_migration").stdout.strip().endswith(":/usr/sbin/nologin")
    said, changed = follow(lab, "prepare_source")
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
    play(lab, guide("prepare_source") + " -e pg_migration_source_margin=20")
    after = look()
    assert before[0] == before[1] != after[0] == after[1] and after[2] > before[2]


def test_what_would_happen(lab: Place) -> None:
    """Validate, and look what a migration would do: that touches nothing."""
    assert "Overall" in follow(lab, "validate").text
    follow(lab, "migrate", "--check --diff")
    assert databases(lab, "target") == [] and traces(lab) == [] and "No migrations yet" in on_runtime(lab)


def test_control_node_dies_and_nothing_is_lost(lab: Place, application: subprocess.Popen[str]) -> None:
    """Migrate, and the control node is killed; migrate again watches the same service and changes nothing; look, verify, cut over. Both
    servers have the same rows then, all confirmed purchases among them."""
    control = begin(lab, guide("migrate"))
    limit = time.monotonic() + 200
    while not (pid := service(lab)) and control.poll() is None and time.monotonic() < limit:
        time.sleep(0.2)
    os.killpg(control.pid, signal.SIGKILL)
    assert pid, control.communicate()[0][-3000:]

    said, changed = follow(lab, "migrate")
    assert changed == 0 and "WaitingForCutoverTrigger" in said
    assert service(lab) == pid
    watch_it(lab)
    watcher = subprocess.Popen(
        ["ssh", "-F", str(lab.keys / "config"), "runtime", "sudo /var/lib/pg_migration/pgm-status shop-2026 --watch"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    typed.add("sudo /var/lib/pg_migration/pgm-status shop-2026 --watch")
    assert "equal, " in follow(lab, "verify").text
    follow(lab, "cutover")
    bought = [int(line) for line in application.communicate(timeout=60)[0].split() if line.isdigit()]
    assert len(bought) > 50
    assert content(lab, "source") == content(lab, "target")
    there = psql(lab, "target", "SELECT id FROM public.purchase", "shop").split()
    assert not set(bought) - set(map(int, there))
    assert "Succeeded" in watcher.communicate(timeout=60)[0].splitlines()[-1]


def watch_it(lab: Place) -> None:
    """The list, the page on the control node, the terminal of the runtime host: each shows the migration, and the list changes nothing."""
    said, changed = follow(lab, "status")
    assert changed == 0 and "shop-2026" in said and "WaitingForCutoverTrigger" in said
    follow(lab, "status", """-e '{"pg_migration_run_reports": {"html": "./shop-2026.html"}}'""")
    assert "WaitingForCutoverTrigger" in (lab.folder / "shop-2026.html").read_text(encoding="utf-8")
    assert "shop-2026" in on_runtime(lab)


def test_nobody_needs_the_record(lab: Place) -> None:
    """Then the migration leaves the list, and its folder goes with it."""
    follow(lab, "cancel", "-e pg_migration_run_forget=true")
    assert "No migrations yet" in on_runtime(lab)
    assert ssh(lab, "runtime", "sudo ls /var/lib/pg_migration/migrations").stdout == ""


def ready_for_the_way_back(lab: Place) -> None:
    """What the page says that the target needs for it."""
    psql(lab, "target", "ALTER SYSTEM SET wal_level = logical; ALTER ROLE admin REPLICATION; GRANT pg_signal_backend TO admin")
    restart(lab, "target")


def switch_over(lab: Place) -> None:
    """Cut over with tasks of the application's, which get the connection strings; here they are for the control node."""
    tasks, found = lab.folder / "switch.yml", lab.folder / "found"
    copied = {"content": "{{ pg_migration_run_connections.billing.uri }}", "dest": str(found), "mode": "0600"}
    tasks.write_text(str([{"name": "Switch", "ansible.builtin.copy": copied, "delegate_to": "localhost"}]))
    play(lab, guide("cutover", option="-e pg_migration_run_after_cutover=/path/switch.yml").replace("/path/switch.yml", str(tasks)))
    assert found.read_text().startswith("postgresql://target:5432/billing")


def buy(lab: Place, host: str, number: int) -> None:
    """The application writes there."""
    words = f"psql -XqAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -U app_owner -d billing -c 'INSERT INTO public.invoice VALUES ({number}, 1)'"
    ssh(lab, host, f"PGPASSWORD='{lab.passwords['app']}' {words}")


def test_the_way_back(lab: Place) -> None:
    """Cut over, go on at the target, and back without a loss; the next time it is given up, and then there is none."""
    ready_for_the_way_back(lab)
    describe(lab, name="billing-2026", databases=["billing"], rollback="prepared")
    follow(lab, "migrate")
    switch_over(lab)
    psql(lab, "target", "ALTER ROLE app_owner PASSWORD :'app'")  # PGM2504: nobody may read the source's
    buy(lab, "target", 5001)
    assert "way back" in follow(lab, "status").text.lower()
    assert follow(lab, "rollback", "--check").text.count("pause")
    follow(lab, "rollback")
    buy(lab, "source", 5002)
    assert psql(lab, "source", "SELECT count(*) FROM public.invoice WHERE id > 5000", "billing").strip() == "2"
    with pytest.raises(RuntimeError, match="billing"):
        buy(lab, "target", 5003)

    psql(lab, "target", "DROP DATABASE billing")
    describe(lab, name="billing-again")
    follow(lab, "migrate")
    follow(lab, "cutover")
    assert follow(lab, "finish").changed > 0
    assert "PGM5202" in follow(lab, "rollback", good=False).text
    assert traces(lab) == []
    assert content(lab, "source", "billing", ["public.invoice"]) == content(lab, "target", "billing", ["public.invoice"])


def test_cancel_and_clean_up(lab: Place) -> None:
    """A canceled one leaves nothing on the source, and on the target what it says, until that is asked for. One whose runtime host has lost
    its state is found by name and removed."""
    psql(lab, "source", "CREATE DATABASE orders OWNER app_owner")
    psql(lab, "source", "SET ROLE app_owner; CREATE TABLE line (id int PRIMARY KEY); INSERT INTO line VALUES (1)", "orders")
    describe(lab, name="orders-2026", databases=["orders"], rollback="none")
    drop = "-e pg_migration_run_drop_target=true"
    follow(lab, "migrate")
    assert "orders" in follow(lab, "cancel").text.partition("left on the target")[2]
    assert traces(lab) == [] and "orders" in databases(lab, "target")
    follow(lab, "cancel", option=drop)
    assert "orders" not in databases(lab, "target") and follow(lab, "cleanup").changed > 0

    describe(lab, name="orders-again")
    follow(lab, "migrate")
    ssh(lab, "runtime", f"sudo systemctl stop 'pg-migration@*' || sudo pkill -u pg_migration; sudo sh -c '{LOST}'")
    left = traces(lab)
    said = follow(lab, "cleanup", "--check").text
    assert left and all(name in said for name in left) and traces(lab) == left
    follow(lab, "cleanup", option=drop)
    assert traces(lab) == [] and "orders" not in databases(lab, "target")
    assert follow(lab, "cleanup", option="-e pg_migration_run_cleanup_all=true").changed == 0


def test_nothing_of_the_page_was_left_out(request: pytest.FixtureRequest) -> None:
    """Every command and option that docs/guide.md names was played by the tests above."""
    here = {item.name for item in request.session.items if item.path == request.node.path}
    if not {name for name in vars(sys.modules[__name__]) if name.startswith("test_")} <= here:
        pytest.skip("not all tests of this file were run")
    assert [one for one in (*COMMANDS, *OPTIONS) if one not in typed] == []
