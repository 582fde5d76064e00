# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""No check without its fault: each code is in a test of ``test_validate_faults_*`` that makes it on a real server, or in
``test_validate.py`` (connections)."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import CHECKS
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import OUTSIDE_REGISTRY


def test_every_check_has_a_fault() -> None:
    folder = Path(__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in [*folder.glob("test_validate_faults_*.py"), folder / "test_validate.py"])
    assert [code for code in [*CHECKS, *OUTSIDE_REGISTRY] if f'"{code}"' not in text] == []
