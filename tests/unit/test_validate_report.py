# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Registry, report, sets of databases, and the checks' pure parts."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import MigrationError, SpecificationError
from ansible_collections.pgops.migration.plugins.module_utils._engine.globals.parameters import compare
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres import profiles
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.identity import IdentityGap, plan_identity
from ansible_collections.pgops.migration.plugins.module_utils._engine.source.settings import Setting
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import SOURCE_TYPES, TARGET_TYPES, MigrationSpec
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate import registry, servers
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.collations import locale_key
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.databases import resolve_databases, split_batches
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.extensions import ready_value, words
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.registry import CHECKS, Finding
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.report import Report
from ansible_collections.pgops.migration.plugins.module_utils._engine.validate.runner import OUTSIDE_REGISTRY
from hypothesis import given
from hypothesis import strategies as st

REPO = Path(__file__).resolve().parents[2]
CANARY = "canary-3f1c"


@pytest.fixture
def spec() -> MigrationSpec:
    return MigrationSpec.from_dict(
        {
            "name": "shop-2026",
            "databases": ["shop", "billing"],
            "source": {"host": "db1", "user": "migrator", "password": CANARY},
            "target": {"host": "db2", "user": "admin", "password": CANARY},
        }
    )


def finding(severity: str = "Succeeded", database: str = "", **more: t.Any) -> Finding:
    values = {"code": "PGM2101", "azure_code": "603107", "scope": "instance", "side": "source", "object": "", "check": "wal_level"}
    return Finding(**{**values, "message": "logical", "fix": "", "seconds": 0.1, **more}, database=database, severity=severity)


def test_every_check_has_a_fault() -> None:
    """No check without its fault: each code is in a test that makes it on a real server and repairs it."""
    folder = REPO / "tests/integration"
    text = "".join(path.read_text(encoding="utf-8") for path in [*folder.glob("test_validate*.py"), folder / "test_rollback.py"])
    assert [code for code in [*CHECKS, *OUTSIDE_REGISTRY] if f'"{code}"' not in text] == []


def test_codes_are_stable_in_form_and_documented() -> None:
    assert all(re.fullmatch(r"PGM2\d{3}", code) for code in [*CHECKS, *OUTSIDE_REGISTRY])
    assert not set(CHECKS) & set(OUTSIDE_REGISTRY)
    for c in CHECKS.values():
        assert c.purpose.endswith((".", "?")) and c.remedy and c.worst in ("Succeeded", "Warning", "Failed"), c.code
        assert c.scope in ("instance", "database") and c.side in ("source", "target", "runtime"), c.code
        assert all(re.fullmatch(r"603\d{3}", azure) for azure in c.azure_code.split()), c.code


def test_every_code_says_who_may_mend_it() -> None:
    assert [c.code for c in CHECKS.values() if c.who not in registry.WHO] == []
    assert [code for code, entry in OUTSIDE_REGISTRY.items() if entry[3] not in registry.WHO] == []
    assert {c.code for c in CHECKS.values() if c.restart} == {"PGM2101", "PGM2102", "PGM2103", "PGM2317", "PGM2403"}


@pytest.mark.parametrize(
    ("who", "side", "managed", "found"),
    [
        (registry.SUPERUSER, "source", True, registry.SERVER),
        (registry.SUPERUSER, "source", False, registry.SUPERUSER),
        (registry.SERVER, "source", False, registry.SUPERUSER),
        (registry.SERVER, "target", False, registry.ADMINISTRATOR),
        (registry.SERVER, "target", True, registry.SERVER),
        (registry.OWNER, "source", True, registry.OWNER),
    ],
)
def test_who_depends_on_the_kind_of_server(who: str, side: str, managed: bool, found: str) -> None:
    assert registry.responsible(who, side, managed) == found


def test_two_checks_cannot_share_a_code() -> None:
    with pytest.raises(MigrationError, match="PGM2101"):
        registry.check("PGM2101", "again")(lambda dummy: iter(()))


def test_docs_are_up_to_date() -> None:
    module = importlib.util.spec_from_file_location("validation_table", REPO / "scripts" / "lib" / "validation_table.py")
    assert module and module.loader
    table = importlib.util.module_from_spec(module)
    module.loader.exec_module(table)
    assert (REPO / "docs" / "validation.md").read_text(encoding="utf-8") == table.render(), "run scripts/make-docs"


@pytest.mark.parametrize(
    ("severities", "status", "passed"),
    [
        ((), "Succeeded", True),
        (("Succeeded",), "Succeeded", True),
        (("Succeeded", "Warning"), "Warning", True),
        (("Warning", "Failed", "Succeeded"), "Failed", False),
    ],
)
def test_overall_status(spec: MigrationSpec, severities: tuple[str, ...], status: str, passed: bool) -> None:
    report = Report(spec, [finding(s) for s in severities])
    assert (report.status, report.passed) == (status, passed)


def test_table_reads_at_a_glance(spec: MigrationSpec) -> None:
    report = Report(
        spec,
        [
            finding(),
            finding(
                "Warning", "shop", check="replica identity", code="PGM2301", message="1 table", fix="ALTER TABLE x;", who=registry.OWNER
            ),
        ],
    )
    report.findings.append(finding(check="connectivity source", message="0.01 s"))
    assert report.table() == [
        "shop      replica identity     Warning    PGM2301  1 table",
        " " * 42 + "Fix (owner of the object; no restart): ALTER TABLE x;",
        "instance  connectivity source  Succeeded  0.01 s",
        "1 further checks Succeeded",
        "Overall  Warning (1 of 3)",
    ]


def test_files_hold_everything_but_secrets(spec: MigrationSpec, tmp_path: Path) -> None:
    report = Report(
        spec, [finding("Failed", "shop", message="<b>&", fix='GRANT "x"', who=registry.SUPERUSER, restart=True)], databases=["shop"]
    )
    report.finish()
    data = json.loads(report.write_json(tmp_path / "v.json").read_text())
    assert data["status"] == "Failed" and data["databases"][0]["status"] == "Failed" and data["instance"]["status"] == "Succeeded"
    assert data["findings"][0]["azure_code"] == "603107"
    assert (data["findings"][0]["who"], data["findings"][0]["restart"]) == ("superuser on the source", True)
    page = report.write_html(tmp_path / "v.html").read_text()
    assert "superuser on the source; restart" in page
    assert "&lt;b&gt;&amp;" in page and "GRANT &quot;x&quot;" in page and "<script" not in page and "http" not in page
    for name in ("v.json", "v.html"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        assert CANARY not in (tmp_path / name).read_text()


@given(st.lists(st.text(min_size=1, max_size=4)), st.integers(1, 9))
def test_batches_hold_every_database_once(names: list[str], size: int) -> None:
    batches = split_batches(names, size)
    assert [n for b in batches for n in b] == list(dict.fromkeys(names))
    assert all(0 < len(b) <= size for b in batches) and all(len(b) == size for b in batches[:-1])


def test_nineteen_databases_are_three_sets() -> None:
    assert [len(b) for b in split_batches([f"d{n}" for n in range(19)])] == [8, 8, 3]
    with pytest.raises(ValueError, match="at least one"):
        split_batches(["a"], 0)


def test_nine_databases_are_too_many_for_one_attempt(spec: MigrationSpec) -> None:
    nobody = t.cast(t.Any, None)
    eight = dataclasses.replace(spec, databases=tuple(f"d{n}" for n in range(8)))
    assert resolve_databases(eight, nobody) == list(eight.databases)
    nine = dataclasses.replace(spec, databases=tuple(f"d{n}" for n in range(9)))
    with pytest.raises(SpecificationError) as caught:
        resolve_databases(nine, nobody)
    assert caught.value.code == "PGM1004" and [len(b) for b in caught.value.details["batches"]] == [8, 1]
    assert len(resolve_databases(nine, nobody, limit=0)) == 9
    assert resolve_databases(dataclasses.replace(spec, databases=("a", "b", "a")), nobody) == ["a", "b"]
    with pytest.raises(SpecificationError, match="no database"):
        resolve_databases(dataclasses.replace(spec, databases=()), nobody)


def test_ready_value_keeps_what_is_there() -> None:
    assert (
        ready_value("pg_cron, pg_stat_statements", ["pgaudit", "PG_CRON", "wal2json", "pgaudit"])
        == "pg_cron,pg_stat_statements,pgaudit,wal2json"
    )
    assert ready_value("", ["hstore"]) == "hstore"
    assert words(' "a" , b,,') == ["a", "b"]


def test_eight_names_of_the_guide_map_to_libraries() -> None:
    guide = "pg_cron pg_hint_plan pg_partman_bgw pg_prewarm pg_stat_statements pg_audit pglogical wal2json"
    libraries = {profiles.PRELOADED[name] for name in guide.split()}
    assert libraries == set(guide.replace("pg_audit", "pgaudit").split())


def test_every_type_has_a_profile() -> None:
    for kind in (*SOURCE_TYPES, *TARGET_TYPES):
        profile = profiles.profile_for(kind)
        assert profile.managed == (
            kind in ("azure_single_server", "azure_flexible", "aws_rds", "aws_aurora", "gcp_cloudsql", "gcp_alloydb")
        )
        assert profile.is_provider_role("pg_monitor") and not profile.is_provider_role("postgres") and not profile.is_provider_role("app")
    azure = profiles.profile_for("azure_flexible")
    assert azure.is_provider_role("azure_pg_admin") and azure.is_provider_role("azuresu") and azure.is_provider_role("replication")
    assert azure.refuses("SUPERUSER", 170000) and azure.refuses("BYPASSRLS", 150000) and not azure.refuses("BYPASSRLS", 160000)
    assert azure.set_parameter("work_mem", "64MB").endswith("--name work_mem --value '64MB'")
    assert profiles.profile_for("aws_rds").grant_replication('"m"') == 'GRANT rds_replication TO "m"'


def test_locale_names_that_are_one() -> None:
    assert locale_key("en_US.UTF-8") == locale_key("en_US.utf8") != locale_key("en_US.iso88591")
    assert locale_key("de_DE.utf8@euro") == locale_key("de_DE.UTF-8@euro")


@pytest.mark.parametrize(
    ("number", "name", "major"), [(150020, "15.20", (15,)), (90603, "9.6.3", (9, 6)), (100001, "10.1", (10,)), (90424, "9.4.24", (9, 4))]
)
def test_versions(number: int, name: str, major: tuple[int, ...]) -> None:
    assert servers.version_name(number) == name and servers.major(number) == major


class Faked:
    """A context that only knows versions."""

    def __init__(self, source: int, target: int) -> None:
        self.versions = {"source": source, "target": target}

    def version(self, side: str) -> int:
        return self.versions[side]


@pytest.mark.parametrize(("version", "severity"), [(90424, "Failed"), (90500, "Succeeded"), (180000, "Succeeded")])
def test_oldest_source(version: int, severity: str) -> None:
    issue = next(servers.source_version(t.cast(t.Any, Faked(version, 170000))))
    assert issue.severity == severity and servers.version_name(version) in issue.message
    assert CHECKS["PGM2010"].azure_code == "603400"


@pytest.mark.parametrize(
    ("source", "target", "severity"),
    [
        (150020, 150001, "Succeeded"),
        (150020, 170000, "Succeeded"),
        (160000, 150020, "Failed"),
        (100000, 90600, "Failed"),
        (90600, 90500, "Failed"),
    ],
)
def test_no_move_to_an_older_major_version(source: int, target: int, severity: str) -> None:
    assert next(servers.target_version(t.cast(t.Any, Faked(source, target)))).severity == severity


def test_parameters_are_classed() -> None:
    def setting(name: str, value: str, *, unit: str = "", context: str = "user", source: str = "changed") -> Setting:
        return Setting(name, value, unit, context, source)

    source = [
        setting("work_mem", "65536", unit="kB"),
        setting("random_page_cost", "1.1"),
        setting("autovacuum_naptime", "30", unit="s", context="sighup"),
        setting("track_activity_query_size", "4096", context="postmaster"),
        setting("archive_command", "cp", context="sighup"),
        setting("wal_compression", "on", source="default"),
        setting("old_one", "on"),
        setting("jit", "off"),
        setting("fsync", "off", context="sighup"),
        setting("huge_pages", "on", context="postmaster"),
    ]
    target = [
        setting("work_mem", "4096", unit="kB"),
        setting("random_page_cost", "4"),
        setting("autovacuum_naptime", "30", unit="s"),
        setting("track_activity_query_size", "1024", unit="B", context="postmaster"),
        setting("jit", "on"),
    ]
    found = {d.name: d for d in compare({s.name: s for s in source}, {s.name: s for s in target}, profiles.AZURE_FLEXIBLE)}
    kinds = {name: d.kind for name, d in found.items()}
    assert kinds == {
        "work_mem": "size",
        "random_page_cost": "copy",
        "track_activity_query_size": "copy",
        "old_one": "unknown",
        "jit": "copy",
    }
    assert found["track_activity_query_size"].restart and not found["jit"].restart
    assert found["jit"].command.startswith("az postgres flexible-server parameter set") and found["jit"].command.endswith(
        "--name jit --value 'off'"
    )
    assert not found["old_one"].settable and found["old_one"].command == ""


def test_identity_policies() -> None:
    gaps = [
        IdentityGap("s", 'a"b', "d", "", "", "it has no primary key"),
        IdentityGap("s", "c", "i", "old", "c_key", "the index is missing"),
    ]
    assert plan_identity(gaps, "fail").refused == ('s.a"b', "s.c")
    assert plan_identity(gaps, "exclude").excluded == ('s.a"b', "s.c")
    changes = plan_identity(gaps, "set_full").changes
    assert [c.statement for c in changes] == [
        'ALTER TABLE "s"."a""b" REPLICA IDENTITY FULL',
        'ALTER TABLE "s"."c" REPLICA IDENTITY USING INDEX "c_key"',
    ]
    assert [c.restore for c in changes] == [
        'ALTER TABLE "s"."a""b" REPLICA IDENTITY DEFAULT',
        'ALTER TABLE "s"."c" REPLICA IDENTITY USING INDEX "old"',
    ]
    with pytest.raises(ValueError, match="policy"):
        plan_identity(gaps, "hope")
