# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A control group for each host. In one and the same, the systemd of each host would take the units of the others for its own."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from lab.place import Place


def folders(place: Place, host: str) -> list[Path]:
    """The host's group in the unified hierarchy and in the one that systemd names its own, as far as this machine has them."""
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        dummy, where, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(where) / f"pgm{place.slot}-{host}")
    return found


def enter(place: Place, host: str) -> None:
    """Move this process, and so all that it starts, into the host's groups."""
    for folder in folders(place, host):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.procs").write_text(str(os.getpid()))


def remove(place: Place, host: str) -> None:
    """Remove the groups; the last process may take a moment to leave them."""
    limit = time.monotonic() + 10
    for top in folders(place, host):
        while top.exists() and time.monotonic() < limit:
            for folder, dummy, dummy_files in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            if top.exists():
                time.sleep(0.05)
