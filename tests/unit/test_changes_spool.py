# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The spool: what was written whole is read back, what was torn is cut off, and nothing is removed too early."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import spool as sp
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import spool_writer
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.spool_writer import SpoolWriter
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from frames import data
from hypothesis import given
from hypothesis import strategies as st

Record = tuple[int, int, bytes]


def block(number: int, payload: bytes = b"x", *, compress: bool = False) -> bytes:
    """A block of one commit that ends at ``number``."""
    return sp.encode_block(data(number, payload), 1, number, compress=compress)


def read_all(reader: sp.SpoolReader) -> list[Record]:
    found: list[Record] = []
    while (item := reader.next_block()) is not None:
        found += item[0].records()
    return found


@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=5), max_size=8), st.booleans())
def test_round_trip(blocks: list[list[bytes]], compress: bool) -> None:
    """Records come back in order, from several segments."""
    with tempfile.TemporaryDirectory() as name:
        writer = SpoolWriter(Path(name), 400, 7)
        wanted = []
        for number, payloads in enumerate(blocks, 10):
            frames = [data(number, p) for p in payloads]
            writer.append(sp.encode_block(b"".join(frames), len(payloads), number, compress=compress), number)
            wanted += [(sp.MESSAGE, number, p) for p in payloads]
            if writer.full:
                writer.begin_segment()
        writer.close()
        assert read_all(sp.SpoolReader(Path(name), 7)) == wanted
        again = SpoolWriter(Path(name), 400, 3)
        assert again.durable == (9 + len(blocks) if blocks else 3)


@given(st.integers(1, 6), st.integers(0, 2**31), st.booleans())
def test_torn_tail_is_cut(count: int, cut: int, garbage: bool) -> None:
    """Wherever the last segment ends or whatever its tail holds: the whole blocks before stay, and writing goes on after them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = SpoolWriter(folder, 1 << 20, 1)
        sizes = []
        for number in range(10, 10 + count):
            writer.append(block(number, b"y" * number), number)
            sizes.append(writer.size)
        writer.close()
        path = next(folder.glob("*.seg"))
        data = path.read_bytes()
        keep = cut % len(data)
        path.write_bytes(data[:keep] + (b"\x00garbage" * 9 if garbage else b""))
        whole = sum(1 for size in sizes if size <= keep)
        again = SpoolWriter(folder, 1 << 20, 1)
        assert again.durable == (9 + whole if whole else 1)
        again.append(block(99), 99)
        again.close()
        assert [r[1] for r in read_all(sp.SpoolReader(folder, 1))] == [*range(10, 10 + whole), 99]


def test_reader_waits_for_the_writer_and_follows_it(tmp_path: Path) -> None:
    """A reader sees a block when it is whole, and the next segment when the present one is ended."""
    reader = sp.SpoolReader(tmp_path, 1)
    assert reader.next_block() is None
    writer = SpoolWriter(tmp_path, 100, 1)
    data = block(10)
    writer.append(data[:20], 10)
    assert reader.next_block() is None
    writer.close()
    path = next(tmp_path.glob("*.seg"))
    path.write_bytes(path.read_bytes() + data[20:])
    found = reader.next_block()
    assert found is not None and found[1]
    writer = SpoolWriter(tmp_path, 100, 1)
    writer.append(block(20), 20)
    following = reader.next_block()
    assert following is not None and following[1] and following[0].safe == 20
    writer.close()


def test_segments_go_only_when_applied(tmp_path: Path) -> None:
    """Law 4: a segment goes when the next begins at or before the applied position; the present one never."""
    writer = SpoolWriter(tmp_path, 100, 1)
    for number in (10, 20, 30):
        writer.append(block(number, b"z" * 90), number)
        writer.begin_segment()
    writer.open_segment()
    assert writer.remove_before(9) == 0
    assert writer.remove_before(20) == 2
    assert [s.start for s in sp.segments(tmp_path)] == [20, 30]
    assert writer.remove_before(1000) == 1
    assert writer.size == sum(s.size for s in sp.segments(tmp_path))
    with pytest.raises(StreamError) as caught:
        sp.SpoolReader(tmp_path, 5).next_block()
    assert caught.value.code == "PGM4011"


def test_reader_begins_at_the_segment_of_its_position(tmp_path: Path) -> None:
    """Older segments are not read again."""
    writer = SpoolWriter(tmp_path, 100, 1)
    for number in (10, 20, 30):
        writer.append(block(number), number)
        writer.begin_segment()
    assert [r[1] for r in read_all(sp.SpoolReader(tmp_path, 20))] == [30]
    assert [r[1] for r in read_all(sp.SpoolReader(tmp_path, 15))] == [20, 30]
    assert [r[1] for r in read_all(sp.SpoolReader(tmp_path, None))] == [10, 20, 30]


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """A damaged block that is not the tail is never skipped."""
    writer = SpoolWriter(tmp_path, 100, 1)
    writer.append(block(10, b"a" * 50), 10)
    writer.begin_segment()
    writer.append(block(20), 20)
    writer.close()
    path = min(tmp_path.glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StreamError) as caught:
        read_all(sp.SpoolReader(tmp_path, 1))
    assert caught.value.code == "PGM4010"


def test_full_disk_leaves_the_spool_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way is undone."""
    writer = SpoolWriter(tmp_path, 1 << 20, 1)
    writer.append(block(10), 10)
    real, calls = spool_writer.os.pwrite, []

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(handle, bytes(data[:5]), offset)

    monkeypatch.setattr(spool_writer.os, "pwrite", pwrite)
    with pytest.raises(OSError):
        writer.append(block(20), 20)
    monkeypatch.undo()
    writer.append(block(30), 30)
    writer.close()
    assert [r[1] for r in read_all(sp.SpoolReader(tmp_path, 1))] == [10, 30]
