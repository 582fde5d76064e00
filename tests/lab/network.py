# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The lab's nets: one for the databases, which all three hosts are in, and one link from this machine to the runtime host.

    this machine -- 10.77.N.128/30 -- runtime -- 10.77.N.0/25 -- source, target

Nothing routes between the two, so the control node reaches source and target only through the runtime host (ssh's ProxyJump).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess

from lab.able import Unable
from lab.place import Place

BRIDGE = "lan0"


def ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``ip`` with ``words``; an error carries what it said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done


def namespaces() -> set[str]:
    """Names of all network namespaces of this machine."""
    return {entry["name"] for entry in json.loads(ip("-j", "netns", "list").stdout or "[]")}


def allot() -> int:
    """A free number. The namespace of the net is made at the same time: two labs that begin together cannot get the same one.

    :raises Unable: there are 250 labs.
    """
    used = ip("-o", "-4", "addr", "show").stdout
    for slot in range(1, 251):
        if f" 10.77.{slot}." not in used and ip("netns", "add", f"pgm{slot}-lan", check=False).returncode == 0:
            return slot
    raise Unable("no free number for a lab: 250 are in use (scripts/lab down ends one)")


def up(place: Place) -> None:
    """Make what of the nets is not there yet."""
    there = namespaces()
    net = place.namespace("lan")
    if net not in there:
        ip("netns", "add", net)
    if ip("-n", net, "link", "show", BRIDGE, check=False).returncode:
        ip("-n", net, "link", "add", BRIDGE, "type", "bridge")
        ip("-n", net, "link", "set", BRIDGE, "up")
    for host in place.hosts:
        if place.namespace(host) not in there:
            ip("netns", "add", place.namespace(host))
        own = place.namespace(host)
        ip("-n", own, "link", "set", "lo", "up")
        ip("netns", "exec", own, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
        if ip("-n", own, "link", "show", "eth0", check=False).returncode:
            ip("-n", net, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", own)
            ip("-n", net, "link", "set", host, "master", BRIDGE, "up")
            ip("-n", own, "addr", "add", f"{place.address(host)}/25", "dev", "eth0")
            ip("-n", own, "link", "set", "eth0", "up")
    connect(place)


def connect(place: Place) -> None:
    """Link this machine to the runtime host and, where the lab is ``direct``, to the net of the databases."""
    link, own = f"pgm{place.slot}", place.namespace("runtime")
    if ip("-n", own, "link", "show", "eth1", check=False).returncode:
        ip("link", "add", link, "type", "veth", "peer", "name", "eth1", "netns", own)
        ip("addr", "add", f"{place.control_address}/30", "dev", link)
        ip("link", "set", link, "up")
        ip("-n", own, "addr", "add", f"{place.runtime_address}/30", "dev", "eth1")
        ip("-n", own, "link", "set", "eth1", "up")
    net, door = place.namespace("lan"), f"pgm{place.slot}d"
    if place.direct:
        if ip("-n", net, "link", "show", "control", check=False).returncode:
            ip("link", "add", door, "type", "veth", "peer", "name", "control", "netns", net)
            ip("-n", net, "link", "set", "control", "master", BRIDGE, "up")
            ip("addr", "add", f"{place.door_address}/25", "dev", door)
            ip("link", "set", door, "up")
        return
    # what this machine's own router would do with such an address is nobody's business
    ip("route", "replace", "unreachable", f"10.77.{place.slot}.0/25")


def end_processes(place: Place, host: str) -> None:
    """Kill whatever lives in the namespace of ``host``, whoever started it."""
    for pid in ip("netns", "pids", place.namespace(host), check=False).stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass


def down(place: Place) -> None:
    """Take the nets away; with its namespace a link goes as well."""
    there = namespaces()
    ip("route", "del", "unreachable", f"10.77.{place.slot}.0/25", check=False)
    for link in (f"pgm{place.slot}", f"pgm{place.slot}d"):
        ip("link", "del", link, check=False)
    for what in (*place.hosts, "lan"):
        if place.namespace(what) in there:
            ip("netns", "del", place.namespace(what))
