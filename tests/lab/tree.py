# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The file system that all hosts begin with: Debian 12 with systemd, sshd, Python, PostgreSQL 15 and wal2json.

Built once (a minute and a half) and kept in ``.work/lab/trees``, or where ``PG_MIGRATION_LAB_TREES`` says; hosts put their own layer
over it. The hosts have no way out, so the wheels that the runtime host installs are in it, with a pip.conf that names them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from lab.able import Unable
from lab.place import LABS

SUITE = "bookworm"
PACKAGES = (
    "systemd,systemd-sysv,dbus,openssh-server,python3,python3-venv,python3-apt,python3-packaging,sudo,iproute2,procps,ca-certificates,adduser,"
    "postgresql-15,postgresql-15-wal2json,postgresql-client"
)
WHEELS = ("psycopg[binary]>=3.2,<4", "asyncpg>=0.30,<0.33", "msgspec>=0.19,<0.23", "pip", "setuptools")
HOST_PYTHON = "3.11"
"""Python of the suite."""

USER = "deploy"
"""Whom Ansible logs in as: not root, with sudo."""

MASKED = ("dev-hugepages.mount", "sys-fs-fuse-connections.mount", "systemd-timesyncd.service", "apt-daily.timer", "apt-daily-upgrade.timer")
"""Units that mean nothing in a host of this kind, or cannot work there."""

PIP_CONF = "[global]\nno-index = true\nfind-links = /srv/wheels\ndisable-pip-version-check = true\n"


def folder() -> Path:
    """Where the tree of this recipe is, or will be."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return Path(os.environ.get("PG_MIGRATION_LAB_TREES") or LABS / "trees") / f"{SUITE}-{recipe}"


def ensure() -> Path:
    """The tree, built where it is not there yet; of several that ask at once, one builds and the others wait.

    :raises Unable: it cannot be built, with the end of what the builder said.
    """
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            fresh = place.with_name(f".{place.name}.fresh")
            shutil.rmtree(fresh, ignore_errors=True)
            fetch_wheels(place.with_name("wheels"))
            build(fresh)
            shutil.copytree(place.with_name("wheels"), fresh / "srv" / "wheels")
            shutil.rmtree(place.with_name("wheels"))
            fresh.rename(place)
    return place


def fetch_wheels(where: Path) -> None:
    """Download what the runtime role asks pip for.

    :raises Unable: the package index does not answer.
    """
    shutil.rmtree(where, ignore_errors=True)
    options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--python-version", HOST_PYTHON, "--dest", str(where)]
    call([sys.executable, "-m", "pip", "download", *options, *WHEELS])


def build(where: Path) -> None:
    """Make the tree at ``where``.

    :raises Unable: a mirror does not answer, or a package cannot be installed.
    """
    words = ["mmdebstrap", "--variant=apt", "--mode=root", "--quiet", f"--include={PACKAGES}", "--dpkgopt=force-unsafe-io"]
    words += ["--aptopt=APT::Install-Recommends false", "--aptopt=APT::Sandbox::User root", "--aptopt=Acquire::Check-Valid-Until false"]
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    common = '"$1"/etc/postgresql-common'
    words += [f"--setup-hook=mkdir -p {common}; echo 'create_main_cluster = false' > {common}/createcluster.conf"]
    words += [f'--customize-hook=chroot "$1" useradd --create-home --shell /bin/bash {USER}']
    words += [f"--customize-hook=echo '{USER} ALL=(ALL) NOPASSWD: ALL' > \"$1\"/etc/sudoers.d/{USER}"]
    call([*words, SUITE, str(where), *mirrors()])
    (where / "etc" / "pip.conf").write_text(PIP_CONF)
    for unit in MASKED:
        (where / "etc" / "systemd" / "system" / unit).symlink_to("/dev/null")


def mirrors() -> list[str]:
    """The machine's own sources of packages as lines for the tree; none: the builder's default."""
    texts = [path.read_text() for path in Path("/etc/apt/sources.list.d").glob("*.sources")]
    texts += [Path("/etc/apt/sources.list").read_text()] if Path("/etc/apt/sources.list").exists() else []
    found = dict.fromkeys(re.findall(r"\b(https?://\S+/debian(?:-security)?)/?(?=\s)", "\n".join(texts)))
    security = {url: f"deb {url} {SUITE}-security main" for url in found if url.endswith("-security")}
    return [security.get(url, f"deb {url} {SUITE} main") for url in found]


def call(words: list[str]) -> None:
    """Run a program of the builder.

    :raises Unable: it ended badly.
    """
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=1200)
    if done.returncode:
        said = (done.stdout + done.stderr)[-1500:]
        raise Unable(f"the hosts' file system cannot be built: {words[0]} ended with {done.returncode}: {said}")
