# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What is known of a lab: its folder ``.work/lab/NAME``, its number on this machine, its addresses and passwords."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import re
import secrets
import typing as t
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LABS = REPO / ".work" / "lab"
HOSTS = {"source": 11, "runtime": 12, "target": 13, "runtime2": 14}
"""All hosts that a lab can have, and the last number of their address in the net of the databases."""


@dataclasses.dataclass
class Place:
    """A lab's record, kept in ``state.json``; ``slot``, 1 to 250, is its number on this machine and the third one of its addresses.
    ``direct``: this machine is in the net of the databases itself, and does the work of a runtime host; ``runtimes``: how many of these;
    ``source``, ``target``: the majors of PostgreSQL there."""

    folder: Path
    slot: int = 0
    init: str = ""
    direct: bool = False
    runtimes: int = 1
    source: int = 15
    target: int = 15
    passwords: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.folder.name

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of this lab."""
        return tuple(host for host in HOSTS if host != "runtime2" or self.runtimes > 1)

    def major(self, host: str) -> int:
        """The major of the server on ``host``; 0: it has none."""
        return {"source": self.source, "target": self.target}.get(host, 0)

    @property
    def control_address(self) -> str:
        """This machine's end of the link to the runtime host."""
        return f"10.77.{self.slot}.129"

    @property
    def worker_addresses(self) -> list[str]:
        """Whence the database servers are asked: the runtime hosts, or this machine."""
        return [self.door_address] if self.direct else [self.address(host) for host in self.hosts if host.startswith("runtime")]

    @property
    def door_address(self) -> str:
        """This machine's address in the net of the databases, where the lab is ``direct``."""
        return f"10.77.{self.slot}.1"

    @property
    def runtime_address(self) -> str:
        """The runtime host's end of that link: the only address that the control node reaches."""
        return f"10.77.{self.slot}.130"

    def address(self, host: str) -> str:
        """The address of ``host`` in the net of the databases, which the control node has no route to."""
        return f"10.77.{self.slot}.{HOSTS[host]}"

    def namespace(self, what: str) -> str:
        """Name of the network namespace of a host, or of the net (``lan``)."""
        return f"pgm{self.slot}-{what}"

    def host_folder(self, host: str) -> Path:
        """Where the files of ``host`` are kept."""
        return self.folder / "hosts" / host

    @property
    def keys(self) -> Path:
        """Keys and ssh's configuration."""
        return self.folder / "ssh"

    @property
    def control_sockets(self) -> Path:
        """Ansible's shared connections; short, because a socket's path may have 107 characters only."""
        return Path(f"/run/pgm-lab-{self.slot}")

    @property
    def inventory(self) -> Path:
        """The inventory of the lab."""
        return self.folder / "inventory.yml"

    def save(self) -> None:
        """Write the record; it holds passwords, so nobody else may read it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        facts = {name: getattr(self, name) for name in ("slot", "init", "direct", "runtimes", "source", "target", "passwords")}
        fresh = self.folder / ".state.json"
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(facts))
        fresh.replace(self.folder / "state.json")


def load(name: str) -> Place:
    """The lab ``name``; with slot 0 where there is none yet.

    :raises ValueError: the name is none.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,30}", name):
        raise ValueError(f"{name!r} is no name of a lab: lower case letters, digits, - and _, at most 31")
    folder = LABS / name
    with contextlib.suppress(FileNotFoundError):
        return Place(folder, **json.loads((folder / "state.json").read_text()))
    return Place(folder, passwords={role: secrets.token_urlsafe(12) for role in ("migrator", "admin", "app")})


@contextlib.contextmanager
def locked(name: str) -> t.Iterator[None]:
    """One command at a time for a lab of this name."""
    LABS.mkdir(parents=True, exist_ok=True)
    path = LABS / f".{name}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
