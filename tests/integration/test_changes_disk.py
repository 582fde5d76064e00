# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The spool on a disk that is full, and on one that is damaged."""

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from changelab import PLUGINS, Start, same
from waits import until

ROWS = "INSERT INTO t SELECT g, repeat(md5(g::text), 30) FROM generate_series({}, {}) g"
"""About a kilobyte each."""


@pytest.fixture
def small_disk(tmp_path: Path) -> t.Iterator[Path]:
    """The spool's folder on a file system of four megabytes."""
    folder = tmp_path / "spool"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_full_disk_pauses_the_stream(small_disk: Path, streaming: Start, plugin: str) -> None:
    """It says so, loses nothing, and goes on by itself as soon as applied segments have gone."""
    stream = streaming(plugin, "CREATE TABLE t (id int PRIMARY KEY, v text)", running=False, segment_bytes=500_000)
    stream.receive()
    with stream.app() as conn:  # type: ignore[attr-defined]
        for first in range(1, 8000, 500):
            conn.execute(t.cast(t.Any, ROWS.format(first, first + 499)))
    until(lambda: "no room on the disk" in stream.reports.get("paused", ""))
    assert str(small_disk) in stream.reports["paused"] and not stream.errors
    stream.apply()
    same(stream)
    until(lambda: not stream.reports["paused"])


def test_damaged_segment_is_told(streaming: Start) -> None:
    """A block whose checksum is wrong, with others behind it, ends the stream before anything of it is applied."""
    stream = streaming("pgoutput", "CREATE TABLE t (id int PRIMARY KEY, v text)", running=False, segment_bytes=200_000)
    stream.receive()
    with stream.app() as conn:  # type: ignore[attr-defined]
        for first in range(1, 8000, 100):
            conn.execute(t.cast(t.Any, ROWS.format(first, first + 99)))
    until(lambda: len(list(stream.folder.glob("*.seg"))) >= 3)
    with sorted(stream.folder.glob("*.seg"))[0].open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 0xFF]))
    stream.apply()
    until(lambda: stream.errors)
    error = stream.errors[0]
    assert isinstance(error, StreamError) and error.code == "PGM4010" and "00000001" in error.message and error.hint
    with stream.there() as conn:  # type: ignore[attr-defined]
        assert conn.execute("SELECT count(*) FROM t").fetchone() == (0,)
