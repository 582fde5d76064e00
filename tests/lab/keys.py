# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""ssh to the hosts: a key made for the lab, the hosts' own keys, which are checked, and the way through the runtime host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lab.place import Place
from lab.tree import USER

Done = subprocess.CompletedProcess[str]


def make_key(path: Path) -> None:
    """An ed25519 key at ``path``, where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)], check=True, stdin=subprocess.DEVNULL)


def make(place: Place) -> None:
    """All keys, ``known_hosts`` and ``config``."""
    place.keys.mkdir(parents=True, exist_ok=True)
    place.keys.chmod(0o700)
    make_key(place.keys / "id")
    known = []
    for host in place.hosts:
        make_key(place.keys / f"host_{host}")
        kind, key = (place.keys / f"host_{host}.pub").read_text().split()[:2]
        names = f"{place.address(host)},{host}" + (f",{place.runtime_address}" if host == "runtime" else "")
        known.append(f"{names} {kind} {key}\n")
    (place.keys / "known_hosts").write_text("".join(known))
    place.control_sockets.mkdir(mode=0o700, exist_ok=True)
    config = place.keys / "config"
    common = f"  User {USER}\n  IdentityFile {place.keys / 'id'}\n  IdentitiesOnly yes\n  UserKnownHostsFile {place.keys / 'known_hosts'}\n"
    common += "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 15\n  LogLevel ERROR\n"
    common += "  ServerAliveInterval 15\n"
    jump = f'  ProxyCommand ssh -F "{config}" -W %h:%p runtime\n'
    blocks = [f"Host runtime\n  HostName {place.runtime_address}\n{common}"]
    blocks += [f"Host {host}\n  HostName {place.address(host)}\n{common}{jump}" for host in place.hosts if host != "runtime"]
    config.write_text("".join(blocks))


def ssh(place: Place, host: str, command: str, stdin: str = "", check: bool = True, timeout: float = 120) -> Done:
    """Run ``command`` on ``host`` with ``stdin``.

    :raises RuntimeError: it ended badly; with what it said.
    """
    words = ["ssh", "-F", str(place.keys / "config"), host, command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
    if check and done.returncode:
        raise RuntimeError(f"{command} on {host} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def forget_connections(place: Place) -> None:
    """End the connections that Ansible keeps open for its next task."""
    if place.slot and place.control_sockets.is_dir():
        for path in place.control_sockets.iterdir():
            subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={path}", "lab"], capture_output=True, check=False)
        shutil.rmtree(place.control_sockets, ignore_errors=True)
