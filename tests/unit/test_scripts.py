# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The commands of scripts/: they explain themselves, and the benchmark writes what its readers expect."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("test", ["--fast", "--full", "--only", "molecule", "oldest"]),
        ("demo", ["--keep", "--clean", "--plugin"]),
        ("lab", ["up", "down", "status", "--init", "--target MAJOR"]),
        ("bench", ["--json", "--scale", "--runs", "--only", "--plugin", "latency", "memory"]),
    ],
)
def test_scripts_explain_themselves(script: str, options: list[str]) -> None:
    done = subprocess.run(
        ["bash", str(REPO / "scripts" / script), "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
    )
    assert all(option in done.stdout for option in options)


def test_unknown_stage_is_refused() -> None:
    done = subprocess.run(["bash", str(REPO / "scripts" / "test"), "--only", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "integration" in done.stderr


def _measure() -> t.Any:
    spec = importlib.util.spec_from_file_location("measure", REPO / "scripts" / "lib" / "bench" / "measure.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module
    spec.loader.exec_module(module)
    return module


def test_results_of_the_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    results = _measure().Results()
    for seconds in (3.0, 1.0, 2.0):
        results.add("snapshot", "shop", "project", {"seconds": seconds})
    results.add("snapshot", "shop", "pg_dump+pg_restore", {"seconds": 4.0})
    results.skip("snapshot", "shop", "pgcopydb", "not installed")
    rows = results.to_list()
    assert rows[0] == {
        "suite": "snapshot",
        "case": "shop",
        "subject": "project",
        "metric": "seconds",
        "unit": "s",
        "median": 2.0,
        "samples": [3.0, 1.0, 2.0],
    }
    assert rows[-1] == {"suite": "snapshot", "case": "shop", "subject": "pgcopydb", "skipped": "not installed"}
    assert list(results.compare()) == ["snapshot/shop: project / pg_dump+pg_restore = 0.50 (seconds: 2.00 against 4.00 s)"]
    assert "skipped: not installed" in capsys.readouterr().out


def test_no_lab_without_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("lab.__main__").main
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["scripts/lab", "up", "nobodys"])
    assert main() == 3
    assert "needs root" in capsys.readouterr().err


def test_a_lab_s_name_is_a_folder_s(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("lab.__main__").main
    monkeypatch.setattr(sys, "argv", ["scripts/lab", "status", "../somewhere"])
    assert main() == 1
    assert "no name of a lab" in capsys.readouterr().err


def test_a_lab_of_a_major_that_is_not_here_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and, for one that is newer than the suite's, ``pg_dump``."""
    versions = importlib.import_module("lab.versions")
    place = importlib.import_module("lab.place").Place
    unable = importlib.import_module("lab.able").Unable
    monkeypatch.setattr(versions, "FETCHED", tmp_path)
    versions.insist(place(tmp_path / "lab"))
    with pytest.raises(unable, match=r"no PostgreSQL 17 here: scripts/majors"):
        versions.insist(place(tmp_path / "lab", target=17))
    (tmp_path / "17" / "bin").mkdir(parents=True)
    (tmp_path / "17" / "bin" / "postgres").touch()
    with pytest.raises(unable, match=r"no pg_dump for PostgreSQL 17 here"):
        versions.insist(place(tmp_path / "lab", target=17))
