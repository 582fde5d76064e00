# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Sizes and places of the three hosts, as far as the inventory and the servers tell them."""

from __future__ import annotations

import os
import socket
import typing as t

import pytest
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import Endpoint
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.places import judge_runtime, same_machine
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import validate
from faults import look
from pair import PASSWORDS, describe, make_target
from tasks import run_module

Specs = t.Callable[..., t.Any]

SMALL = {"vcores": 2, "memory_gb": 8, "storage_gb": 100}
LARGE = {"vcores": 4, "memory_gb": 16, "storage_gb": 100}


def test_a_smaller_target(source_database: str, spec_factory: Specs) -> None:
    """R11: a mismatch is a warning with the numbers."""
    found = look(spec_factory("shop-1", [source_database], source=LARGE, target=SMALL), "PGM2017")
    assert [f.severity for f in found] == ["Warning"] and found[0].restart
    assert "vCPUs: 4 on the source, 2 on the target; GB of memory: 16 on the source, 8 on the target" in found[0].message
    assert look(spec_factory("shop-1", [source_database], source=SMALL, target=LARGE), "PGM2017") == []
    assert look(spec_factory("shop-1", [source_database], source=SMALL), "PGM2017") == [], "nothing is known of the target"


def test_a_smaller_runtime_host(source_database: str, spec_factory: Specs) -> None:
    """R7: below the source a warning, far below an error, and both limits are variables."""
    cpus = os.cpu_count() or 1

    def severities(vcores: int, **checks: float) -> list[str]:
        spec = spec_factory("shop-1", [source_database], source={"vcores": vcores}, checks=checks)
        return [f.severity for f in look(spec, "PGM2018")]

    assert severities(cpus) == [] and severities(cpus * 2) == ["Warning"] and severities(cpus * 5) == ["Failed"]
    assert severities(cpus * 5, runtime_fail=0.1) == ["Warning"] and severities(cpus * 5, runtime_fail=0.1, runtime_warn=0.2) == []
    least = judge_runtime({"vcores": 8.0, "memory_gb": 3.0}, Endpoint("source", "", "a", "b", vcores=8, memory_gb=16), 1.0, 0.25)
    assert least.severity == "Failed" and "GB of memory: 3 here, 16 on the source" in least.message


def own_address() -> str:
    """An address of this machine that is none of the loopback's; empty where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


@pytest.mark.skipif(not own_address() or own_address().startswith("127."), reason="this machine has no address but the loopback's")
def test_a_runtime_host_that_is_the_target(source_database: str, spec_factory: Specs) -> None:
    """R52: the target sees us at its own address."""
    target = make_target()
    try:
        target.stop()
        target.host = own_address()
        with (target.data / "pg_hba.conf").open("a") as hba:
            hba.write(f"host all all {target.host}/32 scram-sha-256\n")
        target.start()
        address = {"host": target.host, "port": target.port, "password": PASSWORDS[target.port]}
        found = look(spec_factory("shop-1", [source_database], target=address), "PGM2019")
        assert [f.severity for f in found] == ["Failed"] and f"its own address {target.host}" in found[0].message
        assert validate(spec_factory("shop-1", [source_database], target=address)).status == "Failed"
    finally:
        target.drop()
    assert look(spec_factory("shop-1", [source_database]), "PGM2019") == [], "a tunnel may end at a loopback address"


def test_which_addresses_are_one_machine() -> None:
    assert same_machine("10.0.0.5", "10.0.0.5") and same_machine("fd00::2", "fd00::2")
    assert not same_machine("10.0.0.4", "10.0.0.5") and not same_machine("127.0.0.1", "127.0.0.1") and not same_machine(None, None)
    assert same_machine("::1", "::1", loopback=True)


@pytest.mark.parametrize(
    ("regions", "policy", "severities"),
    [
        (("westeurope", "West Europe"), "warn", []),
        (("westeurope", "eastus"), "warn", ["Warning"]),
        (("westeurope", "eastus"), "fail", ["Failed"]),
        (("westeurope", "eastus"), "off", []),
        (("centralindia", "South India"), "fail", []),
        (("uaenorth", "uaecentral"), "fail", []),
        (("chinanorth", "centralindia"), "fail", ["Failed"]),
        (("westeurope", ""), "fail", []),
    ],
)
def test_regions_of_azure(regions: tuple[str, str], policy: str, severities: list[str], source_database: str, spec_factory: Specs) -> None:
    """R55."""
    ends = {"source": {"type": "azure_vm", "region": regions[0]}, "target": {"type": "azure_flexible", "region": regions[1]}}
    spec = spec_factory("shop-1", [source_database], checks={"region_policy": policy}, **ends)
    assert [f.severity for f in look(spec, "PGM2020")] == severities
    elsewhere = spec_factory("shop-1", [source_database], checks={"region_policy": policy}, **{**ends, "source": {"region": "frankfurt"}})
    assert look(elsewhere, "PGM2020") == []


def test_the_limits_of_a_task_are_those_of_the_check(source: lab.Server, target: lab.Server, source_database: str) -> None:
    """R7, R55: the section ``checks`` of the inventory reaches the engine through the module."""
    ends = {"source": {"type": "azure_vm", "region": "westeurope"}, "target": {"type": "azure_flexible", "region": "eastus"}}
    ends["source"]["vcores"] = 5 * (os.cpu_count() or 1)  # type: ignore[assignment]

    def severities(**checks: t.Any) -> dict[str, str]:
        migration = describe(source, target, "shop-1", [source_database], checks=checks, **ends)
        said = run_module("pg_migration_validate", **migration, fail_on="never").fine()
        return {f["code"]: f["severity"] for f in said.result["report"]["findings"] if f["code"] in ("PGM2018", "PGM2020")}

    assert severities() == {"PGM2018": "Failed", "PGM2020": "Warning"}
    strict = {"runtime_warn": 0.2, "runtime_fail": 0.1, "region_policy": "fail"}
    assert severities(**strict) == {"PGM2018": "Succeeded", "PGM2020": "Failed"}


def test_the_result_says_where_and_what_the_target_is(
    target: lab.Server, source: lab.Server, source_database: str, spec_factory: Specs
) -> None:
    """R54, R61: location, subscription and group as given; version and login as the servers say them."""
    given = {"region": "westeurope", "subscription": "shop-prod", "resource_group": "databases"}
    report = validate(spec_factory("shop-1", [source_database], target=given, source={"region": "berlin"})).to_dict()
    assert {key: report["target"][key] for key in given} == given and report["source"]["region"] == "berlin"
    assert report["target"]["host"] == target.host
    seen = {f["side"]: f["data"] for f in report["findings"] if f["code"] == "PGM2001" or f["code"] == "PGM2002"}
    assert seen["target"]["version"].startswith(str(target.major)) and seen["target"]["user"] == "admin"
    assert seen["source"]["version"].startswith(str(source.major)) and seen["source"]["user"] == "migrator"


def test_a_tablespace_that_is_not_there(source_database: str, spec_factory: Specs) -> None:
    """More of it, with real tablespaces: test_snapshot_tablespaces.py."""
    found = look(spec_factory("shop-1", [source_database], globals={"tablespaces": {"fast": "nowhere"}}), "PGM2021")
    assert [f.severity for f in found] == ["Failed"] and "CREATE TABLESPACE" in found[0].fix
    assert look(spec_factory("shop-1", [source_database], globals={"tablespaces": {"fast": "pg_default"}}), "PGM2021") == []


def test_hooks_that_are_not_there(source_database: str, spec_factory: Specs, tmp_path) -> None:
    """What the section cutover names on this host is warned of early, with what to do; made, the warning is gone."""
    places, hook = tmp_path / "places.ini", tmp_path / "hook"
    admin = f"host=127.0.0.1 port={lab.free_port()} user=x dbname=pgbouncer"
    cutover: dict[str, t.Any] = {"release": [str(hook)], "release_file": str(places), "release_template": "{dbname}"}
    found = look(spec_factory("shop-1", [source_database], cutover={**cutover, "pgbouncer": [admin]}), "PGM2025")
    assert [(f.severity, f.object) for f in found] == [
        ("Warning", "cutover.release"),
        ("Warning", "cutover.release_file"),
        ("Warning", "PgBouncer"),
    ]
    assert all(f.fix and "would be refused" in f.message for f in found)
    hook.symlink_to("/bin/true")
    places.touch()
    assert look(spec_factory("shop-1", [source_database], cutover=cutover), "PGM2025") == []
    assert look(spec_factory("shop-1", [source_database]), "PGM2025") == []
