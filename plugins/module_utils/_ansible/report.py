# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The error that a failed validation is, for modules to fail with."""

from __future__ import annotations

import typing as t

from .._engine.errors import MigrationError


def validation_error(report: t.Mapping[str, t.Any]) -> MigrationError:
    """The error that a failed validation is."""
    failed = [finding for finding in report.get("findings") or [] if finding.get("severity") == "Failed"]
    first = failed[0] if failed else {}
    return MigrationError(
        f"Validation failed: {len(failed)} finding(s); the first: {first.get('code', '')} {first.get('message', '')}".strip(),
        code=str(first.get("code") or "PGM2000"),
        hint=str(first.get("fix") or "Mend what the findings name, then run this again."),
    )
