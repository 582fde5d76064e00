# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The lab of three hosts: who reaches whom, twice the same, side by side, and nothing left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import typing as t
from pathlib import Path

import pytest
from lab import cgroups, host, network, rooms
from lab.able import Unable
from lab.keys import ssh
from lab.place import Place, load


def make(name: str, init: str = "auto") -> Place:
    """A lab, or the test is skipped with the reason."""
    try:
        return rooms.up(name, init)
    except Unable as error:
        pytest.skip(f"no lab here: {error}")


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Place]:
    """A lab of this run's own."""
    rooms.sweep()
    name = f"hosts-{os.getpid()}"
    yield make(name)
    rooms.down(name)


def answers(place: Place, origin: str, address: str, port: int) -> bool:
    """Does a server answer on ``host`` at this address?"""
    return ssh(place, origin, f"timeout 10 bash -c 'exec 3<>/dev/tcp/{address}/{port}'", check=False).returncode == 0


def test_who_reaches_whom(lab: Place) -> None:
    """The control node reaches the runtime host and neither database server; the runtime host reaches both."""
    socket.create_connection((lab.runtime_address, 22), 10).close()
    for end in ("source", "target"):
        for port in (22, 5432):
            with pytest.raises(OSError):
                socket.create_connection((lab.address(end), port), 10)
        assert answers(lab, "runtime", end, 5432)
        assert ssh(lab, end, "hostname").stdout.strip() == end


def test_hosts_are_hosts(lab: Place) -> None:
    """Each has files, processes and an init of its own; servers are two different ones, and the source has wal2json."""
    ssh(lab, "source", "echo here | sudo tee /root/mark")
    for one in lab.hosts:
        assert (ssh(lab, one, "sudo test -e /root/mark", check=False).returncode == 0) == (one == "source")
        if lab.init == "systemd":
            assert ssh(lab, one, "systemctl is-system-running --wait").stdout.strip() == "running"
    query = "cd / && sudo -u postgres psql -XAtc 'SELECT system_identifier FROM pg_control_system()'"
    assert ssh(lab, "source", query).stdout != ssh(lab, "target", query).stdout
    assert ssh(lab, "source", "test -e /usr/lib/postgresql/15/lib/wal2json.so").returncode == 0


def test_up_again_does_nothing(lab: Place) -> None:
    before = [host.running(lab, one) for one in lab.hosts], lab.inventory.stat().st_mtime_ns
    assert all(before[0])
    rooms.up(lab.name)
    assert before == ([host.running(lab, one) for one in lab.hosts], lab.inventory.stat().st_mtime_ns)


def traces(place: Place) -> dict[str, t.Any]:
    """What this machine knows of a lab."""
    pids = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if str(place.folder).encode() in read(path)]
    return {
        "namespaces": sorted(name for name in network.namespaces() if name.startswith(f"pgm{place.slot}-")),
        "links": [link["ifname"] for link in json.loads(network.ip("-j", "link").stdout) if link["ifname"] == f"pgm{place.slot}"],
        "routes": [line for line in network.ip("route", "show", "table", "all").stdout.splitlines() if f"10.77.{place.slot}." in line],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(place.folder) in line],
        "groups": [str(path) for one in place.hosts for path in cgroups.folders(place, one) if path.exists()],
        "processes": pids,
        "files": [str(path) for path in (place.folder, place.control_sockets) if path.exists()],
    }


def read(path: Path) -> bytes:
    """The file, empty where its process has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_labs_of_killed_runs_are_removed(lab: Place) -> None:
    """A lab is named after the process that made it: it goes when the process is gone, and that of a living one stays."""
    process = subprocess.Popen(["true"])
    process.wait()
    left = load(f"hosts-{process.pid}")
    left.slot = network.allot()
    left.save()
    rooms.sweep()
    assert not any(traces(left).values()), traces(left)
    assert host.running(lab, "source")


def test_a_second_one_beside_it_and_nothing_left(lab: Place) -> None:
    """Hosts without systemd, in a net of their own; ``down`` takes all of it away, also where a host's keeper was killed."""
    other = make(f"{lab.name}-b", "plain")
    try:
        assert other.slot != lab.slot and answers(other, "runtime", "target", 5432)
        assert ssh(other, "source", "cat /proc/1/comm").stdout.strip() == "sshd"
        assert all(found for what, found in traces(other).items() if what != "mounts")
        subprocess.run(["kill", "-9", str(host.running(other, "target"))], check=True)
    finally:
        assert rooms.down(other.name)
    assert not any(traces(other).values()), traces(other)
    assert answers(lab, "runtime", "target", 5432)
