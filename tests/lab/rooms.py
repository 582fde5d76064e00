# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A lab as a whole: up, down, how it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import able, databases, host, inventory, keys, network, tree, versions
from lab.place import LABS, Place, load, locked

ANSWERS = 90.0
"""Seconds that a host may take until it answers by ssh."""


def up(name: str, init: str = "auto", direct: bool = False, runtimes: int = 1, majors: tuple[int, int] = (15, 15)) -> Place:
    """The lab ``name``, all of it running; what is there already is left alone.

    :param direct: with a way from this machine to source and target, and no runtime host in the inventory.
    :param runtimes: 1, or 2 that share the work.
    :param majors: of the servers on source and target.
    :raises able.Unable: this machine cannot hold it.
    """
    able.insist()
    with locked(name):
        place = load(name)
        tree.ensure()
        if not place.slot:
            place.init, place.direct, place.runtimes = able.choose_init(init), direct, runtimes
            place.source, place.target = majors
            versions.insist(place)
            place.slot = network.allot()
            place.save()
        network.up(place)
        keys.make(place)
        for one in place.hosts:
            host.start(place, one)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: wait(place, one), place.hosts))
            list(pool.map(lambda one: databases.make(place, one), ("source", "target")))
        inventory.write(place)
    return place


def wait(place: Place, one: str) -> None:
    """Return when the host answers.

    :raises RuntimeError: it does not; with the end of its console.
    """
    limit = time.monotonic() + ANSWERS
    said = ""
    while time.monotonic() < limit:
        try:
            done = keys.ssh(place, one, "true", check=False, timeout=20)
            if done.returncode == 0:
                return
            said = done.stderr
        except subprocess.TimeoutExpired:
            said = "no answer within 20 s"
        if not host.running(place, one):
            break
        time.sleep(0.1)
    console = (place.host_folder(one) / "console.log").read_text(errors="replace")[-1500:]
    raise RuntimeError(f"host {one} of lab {place.name} does not answer: {said}\n{console}")


def down(name: str) -> bool:
    """End the lab and remove all of it; was there one?"""
    with locked(name):
        place = load(name)
        if not place.folder.exists():
            return False
        keys.forget_connections(place)
        if place.slot:
            for one in place.hosts:
                host.stop(place, one)
            network.down(place)
        remove(place)
    return True


def sweep() -> None:
    """Remove the labs of tests that were killed: those named after a process that is gone."""
    for folder in LABS.glob("*-*"):
        match = re.fullmatch(r"(?:guide|hosts|majors|readme|reboot)-(\d+)(?:-b)?", folder.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            down(folder.name)


def remove(place: Place) -> None:
    """Remove the folder. The last mount of a host goes moments after its last process: until then files are busy."""
    limit = time.monotonic() + 10
    while True:
        try:
            shutil.rmtree(place.folder)
            return
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)


def status(name: str) -> list[tuple[str, str, str, str]]:
    """For each host its name, address, kind and ``up`` or ``down``; empty: no such lab."""
    place = load(name)
    if not place.slot:
        return []
    rows = []
    for one in place.hosts:
        addresses = place.address(one) + (f" {place.runtime_address}" if one == "runtime" else "")
        rows.append((one, addresses, place.init, "up" if host.running(place, one) else "down"))
    return rows
