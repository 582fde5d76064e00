# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The runtime host reboots in the middle of a migration, and its service goes on by itself; hooks in the sandbox of its unit."""

from __future__ import annotations

import os
import time
import typing as t

import byssh
import pytest
from lab import rooms
from lab.able import Unable
from lab.databases import psql
from lab.keys import forget_connections, ssh
from lab.place import Place

PLACES = "/etc/pooler"
FILE = {"release_file": f"{PLACES}/shop.ini", "release_template": "{dbname} = host={host} port={port}"}


def play(lab: Place, playbook: str, more: str = "", good: bool = True) -> str:
    """Play it; what it said."""
    return byssh.play(lab, f"ansible-playbook pgops.migration.{playbook} -i inventory {more}", good).text


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Place]:
    """A lab of this run's own whose hosts have systemd, made ready; or the tests are skipped with the reason."""
    rooms.sweep()
    name = f"reboot-{os.getpid()}"
    try:
        place = rooms.up(name, "systemd")
    except Unable as error:
        pytest.skip(f"no lab here: {error}")
    try:
        byssh.describe(place, {"pg_migration_runtime_writable_paths": [PLACES]}, cutover=FILE)
        play(place, "prepare_source")
        ssh(place, "runtime", f"sudo install -d -o pg_migration -g pg_migration -m 0755 {PLACES}")
        ssh(place, "runtime", f"sudo install -o pg_migration -g pg_migration -m 0644 /dev/null {PLACES}/shop.ini")
        play(place, "migrate")
        yield place
    finally:
        rooms.down(name)


def unit(lab: Place) -> str:
    """The name of the migration's unit."""
    key = ssh(lab, "runtime", "sudo ls /var/lib/pg_migration/migrations").stdout.split()
    assert len(key) == 1
    return f"pg-migration@{key[0]}"


def properties(lab: Place, *names: str) -> dict[str, str]:
    """What systemd knows of the unit."""
    text = ssh(lab, "runtime", f"systemctl show {unit(lab)} -p {','.join(names)}").stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def reboot(lab: Place) -> None:
    """Boot the runtime host anew."""
    before = ssh(lab, "runtime", "cat /proc/1/stat").stdout.split()[21]
    ssh(lab, "runtime", "sudo systemctl reboot", check=False)
    forget_connections(lab)
    limit = time.monotonic() + 90
    while True:
        rooms.wait(lab, "runtime")
        done = ssh(lab, "runtime", "cat /proc/1/stat", check=False)
        if done.returncode == 0 and done.stdout.split()[21] != before:
            break
        assert time.monotonic() < limit
        time.sleep(0.5)
    ssh(lab, "runtime", "systemctl is-system-running --wait", check=False)


def follows(lab: Place, name: str) -> bool:
    """Does a customer who is new on the source come to the target?"""
    psql(lab, "source", f"INSERT INTO public.customer (name) VALUES ('{name}')", "shop")
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        if psql(lab, "target", f"SELECT count(*) FROM public.customer WHERE name = '{name}'", "shop").strip() == "1":
            return True
        time.sleep(0.2)
    return False


def test_it_goes_on_after_a_reboot(lab: Place) -> None:
    """Nobody plays anything: the stream runs again, and the next play finds nothing to do."""
    assert follows(lab, "before") and properties(lab, "UnitFileState")["UnitFileState"] == "enabled"
    reboot(lab)
    assert follows(lab, "after"), ssh(lab, "runtime", f"systemctl status {unit(lab)}; sudo journalctl -u {unit(lab)}", check=False).stdout
    assert properties(lab, "ActiveState")["ActiveState"] == "active"
    assert "WaitingForCutoverTrigger" in play(lab, "migrate")


SANDBOX = [
    ({"release": ["sudo", "systemctl", "reload", "ssh"]}, "NoNewPrivileges"),
    ({**FILE, "release_file": "/etc/hosts"}, "may not write to /etc"),
    ({"release": ["systemclt"]}, "systemclt does not exist"),
]


@pytest.mark.parametrize(("cutover", "words"), SANDBOX)
def test_what_the_sandbox_forbids_is_said_before(cutover: dict[str, t.Any], words: str, lab: Place) -> None:
    """By the service, whose sandbox it is, and not by the module, which is root."""
    byssh.describe(lab, cutover=cutover)
    assert words in " ".join(play(lab, "cutover", "--check", good=False).split())


def test_the_file_is_written_and_the_unit_ends_with_its_migration(lab: Place) -> None:
    """In the folder that the role opens; when the host boots again, the unit ends at once, and is no failed one."""
    byssh.describe(lab, cutover=FILE)
    play(lab, "cutover")
    assert ssh(lab, "runtime", f"cat {PLACES}/shop.ini").stdout == "shop = host=target port=5432\n"
    reboot(lab)
    told = properties(lab, "ActiveState", "Result", "NRestarts", "ExecMainStatus")
    assert told == {"ActiveState": "inactive", "Result": "success", "NRestarts": "0", "ExecMainStatus": "0"}
    play(lab, "cancel", "-e pg_migration_run_forget=true")
    assert ssh(lab, "runtime", "ls /etc/systemd/system/multi-user.target.wants").stdout.count("pg-migration@") == 0
