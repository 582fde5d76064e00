# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Makes the checkout importable as ``ansible_collections.pgops.migration`` and as it stands: no installation before a test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def link_tree() -> Path:
    """``.work/link/ansible_collections/pgops/migration`` pointing at the checkout; the folder for ``sys.path``."""
    root = REPO / ".work" / "link"
    link = root / "ansible_collections" / "pgops" / "migration"
    if not (link.is_symlink() and link.resolve() == REPO):
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".migration-{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(REPO, target_is_directory=True)
        fresh.replace(link)  # atomic: several runs may do this at once
    return root


for entry in (str(link_tree()), str(Path(__file__).parent)):
    if entry not in sys.path:
        sys.path.insert(0, entry)
os.environ.setdefault("ANSIBLE_COLLECTIONS_PATH", str(link_tree()))


def pytest_configure() -> None:
    """Property tests have no time limit of their own: a machine may be busy with other things."""
    from hypothesis import settings

    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")
