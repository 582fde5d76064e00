# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Can this machine hold a lab, and with which kind of hosts?"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

PROGRAMS = ("ip", "unshare", "mount", "chroot", "mmdebstrap", "ssh", "ssh-keygen")
"""What a lab calls on this machine; nspawn besides, where hosts are to have systemd."""


class Unable(Exception):
    """No lab can be made here; the text says why and what would help."""


def insist() -> None:
    """Return where a lab can be made.

    :raises Unable: where the right, a program or the kernel's help is missing.
    """
    if platform.system() != "Linux" or os.geteuid() != 0:
        raise Unable("a lab needs root on Linux: it makes network namespaces, mounts and containers")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise Unable(f"not on this machine: {', '.join(missing)} (Debian's packages iproute2, util-linux, mmdebstrap, openssh-client)")
    probe = ["unshare", "--mount", "--net", "--pid", "--fork", "ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unable(f"no namespaces or no veth devices on this kernel: {done.stderr.strip()}")
    if "overlay" not in Path("/proc/filesystems").read_text():
        raise Unable("the kernel has no overlay file system")


def choose_init(wanted: str) -> str:
    """``systemd`` or ``plain`` (sshd only) for ``wanted`` (``auto``, ``systemd``, ``plain``): systemd where nspawn is there.

    :raises Unable: systemd is wanted and cannot be had.
    """
    found = shutil.which("systemd-nspawn") is not None and Path("/sys/fs/cgroup").is_dir() and os.access("/sys/fs/cgroup", os.W_OK)
    if wanted == "systemd" and not found:
        raise Unable("hosts with systemd need systemd-nspawn (Debian's package systemd-container) and a writable /sys/fs/cgroup")
    return "systemd" if found and wanted != "plain" else "plain"
