# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""R1: the types of sources that a module's own argument spec takes, and refuses."""

from __future__ import annotations

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import SOURCE_TYPES
from tasks import run_module

NOBODY = {"host": "127.0.0.1", "port": 1, "user": "u", "password": "canary-type", "connect_timeout": 1}


@pytest.mark.parametrize("kind", SOURCE_TYPES)
def test_known_types_are_taken(kind: str) -> None:
    """The argument spec lets it through: what fails is the connection to a closed port."""
    said = run_module("pg_configure_cdc", source={**NOBODY, "type": kind}, method="report")
    assert said.result["failed"] and said.result["error_code"].startswith("PGM11"), said.text


def test_the_tutorial_s_types_are_known() -> None:
    """Single Server, AWS, a virtual machine, on-premises."""
    assert {"azure_single_server", "aws_rds", "azure_vm", "on_premises"} <= set(SOURCE_TYPES)


@pytest.mark.parametrize("kind", ["mainframe", "", "AWS_RDS"])
def test_other_types_are_refused(kind: str) -> None:
    """By Ansible itself, before anything is connected to."""
    said = run_module("pg_configure_cdc", source={**NOBODY, "type": kind}, method="report")
    assert said.result["failed"] and "value of type must be one of" in said.result["msg"] and "error_code" not in said.result
