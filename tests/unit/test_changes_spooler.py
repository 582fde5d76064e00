# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The thread that writes the spool: segments, descriptions, compression, limits and a disk without room."""

from __future__ import annotations

import dataclasses
import errno
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import spool as sp
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes import spooler as module
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.intake import Scanner
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.spool_writer import SpoolWriter
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.spooler import Spooler
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.walstream import SPARE
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import ChangeOptions
from frames import data, keepalive

OPTIONS = ChangeOptions(segment_bytes=1000, spool_max_bytes=1 << 30, spool_compression="never")
Records = list[tuple[int, int, bytes]]


class Feed:
    """A spooler that is fed with frames."""

    def __init__(self, folder: Path, **options: t.Any) -> None:
        self.folder, self.scanner = folder, Scanner(0, describes=True)
        self.spooler = Spooler(folder, dataclasses.replace(OPTIONS, **options), 1, lambda: None)
        self.spooler.start()

    def put(self, *frames: bytes) -> None:
        body = b"".join(frames)
        self.spooler.put(self.scanner.scan(bytearray(body + bytes(SPARE)), len(body)))

    def written(self) -> None:
        await_(lambda: self.spooler.idle)


def await_(condition: t.Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def transaction(lsn: int, size: int = 100, *more: bytes) -> list[bytes]:
    """Begin, a change of ``size`` bytes, commit that ends at ``lsn``."""
    return [data(lsn - 2, b"B......"), *more, data(lsn - 1, b"I" + b"x" * size), data(lsn, b"C......")]


def read_all(folder: Path, position: int | None = None) -> list[tuple[bool, sp.Block]]:
    reader, found = sp.SpoolReader(folder, position), []
    while (item := reader.next_block()) is not None:
        found.append((item[1], item[0]))
    reader.close()
    return found


def relation(oid: int) -> bytes:
    return data(0, b"R" + oid.to_bytes(4, "big") + b"public")


def test_segments_begin_outside_of_transactions_with_the_descriptions(tmp_path: Path) -> None:
    """A full segment ends behind the last commit of a chunk; the next one repeats what was described before, and only that."""
    feed = Feed(tmp_path)
    feed.put(*transaction(10, 1200, relation(1)), data(11, b"B......"))
    feed.written()
    feed.put(data(12, b"I" + b"y" * 50), data(13, b"C......"), data(14, b"B......"), relation(2), data(15, b"I" + b"z" * 50))
    feed.put(data(16, b"C......"))
    feed.written()
    feed.put(*transaction(30, 1200))
    feed.put(*transaction(40))
    feed.spooler.close()
    kinds: list[list[bytes]] = []
    for first, block in read_all(tmp_path):
        if first:
            kinds.append([])
        kinds[-1] += [payload[:1] + payload[4:5] * (payload[:1] == b"R") for dummy, dummy2, payload in block.records()]
    assert kinds[0] == [b"B", b"R\x01", b"I", b"C", b"B", b"I", b"C"]
    assert kinds[1] == [b"R\x01", b"B", b"R\x02", b"I", b"C", b"B", b"I", b"C"]
    assert kinds[2] == [b"R\x01", b"R\x02", b"B", b"I", b"C"]
    assert [s.start for s in sp.segments(tmp_path)] == [1, 13, 30]
    assert feed.spooler.durable == 40 and feed.spooler.error is None


def test_a_new_connection_forgets_the_open_transaction(tmp_path: Path) -> None:
    """What was broken off is not safe, its segment is ended, and nothing is described there."""
    feed = Feed(tmp_path)
    feed.put(*transaction(10, 10, relation(1)), data(11, b"B......"), data(12, b"Iabc"))
    feed.spooler.begin(threading.Event())
    assert feed.spooler.durable == 10
    feed.scanner = Scanner(0, describes=True)
    feed.put(*transaction(20))
    feed.spooler.close()
    assert [(first, block.safe, block.open) for first, block in read_all(tmp_path)] == [(True, 10, True), (True, 20, False)]


def test_compressed_and_plain_segments_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` compresses once much waits; a reader sees the same frames, and recovery the same end."""
    monkeypatch.setattr(module, "COMPRESS_ABOVE", 3000)
    feed, wanted = Feed(tmp_path, spool_compression="auto"), []
    for lsn in range(10, 200, 10):
        frames = transaction(lsn, 400)
        wanted += frames
        feed.put(*frames)
        feed.written()
    feed.spooler.close()
    blocks = [block for dummy, block in read_all(tmp_path)]
    assert b"".join(block.body for block in blocks) == b"".join(wanted)
    smaller = [block.size < len(block.body) for block in blocks]
    assert smaller[0] is False and smaller[-1] is True
    assert sum(s.size for s in sp.segments(tmp_path)) == feed.spooler.size < sum(len(b.body) for b in blocks)
    assert SpoolWriter(tmp_path, 1000).durable == 190
    last = sp.segments(tmp_path)[-1].path
    last.write_bytes(last.read_bytes()[:-3])
    again = SpoolWriter(tmp_path, 1000)
    assert again.durable == 180
    again.close()


@pytest.mark.parametrize(("mode", "smaller"), [("always", True), ("never", False)])
def test_compression_as_asked(tmp_path: Path, mode: str, smaller: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """``always`` and ``never`` do not look at what waits."""
    monkeypatch.setattr(module, "COMPRESS_ABOVE", 0 if mode == "never" else 1 << 40)
    feed = Feed(tmp_path, spool_compression=mode)
    feed.put(*transaction(10, 5000))
    feed.spooler.close()
    ((dummy, block),) = read_all(tmp_path)
    assert (block.size < len(block.body)) is smaller


def test_the_limit_pauses_and_applied_segments_make_room(tmp_path: Path) -> None:
    """Above ``spool_max_bytes`` nothing is written until the target has caught up; what waits in memory is bounded, too."""
    feed = Feed(tmp_path, spool_max_bytes=3000)
    lsn = 0
    for dummy in range(40):
        lsn += 10
        feed.put(*transaction(lsn, 900))
    await_(lambda: "limit is 3000" in feed.spooler.paused)
    assert feed.spooler.size < 3000 + 2200
    at = feed.spooler.durable
    assert 0 < at < lsn
    feed.put(*transaction(lsn + 10, module.QUEUE_BYTES))
    assert not feed.spooler.wait_room(0.01)
    for applied in range(10, lsn + 10, 10):  # the target catches up commit by commit
        feed.spooler.set_applied(applied)
    await_(lambda: feed.spooler.durable == lsn + 10)
    assert feed.spooler.paused == "" and feed.spooler.wait_room(0.01)
    feed.spooler.close()


def test_one_transaction_larger_than_the_limit_is_said_and_passes(tmp_path: Path) -> None:
    """It cannot be removed in parts, so it may exceed the limit; the notice goes with it."""
    feed = Feed(tmp_path, spool_max_bytes=3000)
    feed.put(data(10, b"B......"))
    for dummy in range(8):
        feed.put(data(11, b"I" + b"x" * 900))
    feed.written()
    assert "a single transaction" in feed.spooler.notice and feed.spooler.paused == ""
    feed.put(data(20, b"C......"), *transaction(30))
    await_(lambda: bool(feed.spooler.paused))
    assert feed.spooler.notice == ""
    feed.spooler.set_applied(20)
    await_(lambda: feed.spooler.durable == 30)
    feed.spooler.close()


def test_stopping_while_there_is_no_room(tmp_path: Path) -> None:
    """The end does not wait for room."""
    feed = Feed(tmp_path, spool_max_bytes=1000)
    for lsn in range(10, 100, 10):
        feed.put(*transaction(lsn, 900))
    await_(lambda: bool(feed.spooler.paused))
    feed.spooler.close()
    assert feed.spooler.error is None and feed.spooler.durable < 90


def test_a_full_disk_pauses_and_a_broken_one_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC is waited out; EIO is PGM4012."""
    feed = Feed(tmp_path)
    number = [errno.ENOSPC]
    real = SpoolWriter.append

    def append(self: SpoolWriter, block: bytes, safe: int) -> None:
        if number[0]:
            raise OSError(number[0], "failed")
        real(self, block, safe)

    monkeypatch.setattr(SpoolWriter, "append", append)
    feed.put(*transaction(10))
    await_(lambda: "no room" in feed.spooler.paused)
    number[0] = 0
    await_(lambda: feed.spooler.durable == 10)
    assert feed.spooler.paused == ""
    number[0] = errno.EIO
    feed.put(*transaction(20))
    await_(lambda: feed.spooler.error is not None)
    assert isinstance(feed.spooler.error, StreamError) and feed.spooler.error.code == "PGM4012"
    feed.spooler.close()
    assert feed.spooler.durable == 10


def test_thousands_of_segments_cost_nothing_to_look_after(tmp_path: Path) -> None:
    """Removing what is applied looks at the first segments only."""
    for number in range(1, 3001):
        (tmp_path / f"{number:08d}.seg").write_bytes(sp.segment_head(number * 10))
    writer = SpoolWriter(tmp_path, 1000)
    began = time.process_time()
    for dummy in range(20000):
        assert writer.remove_before(5) == 0
    assert time.process_time() - began < 1.0
    assert writer.remove_before(20005) == 1999
    assert [s.start for s in sp.segments(tmp_path)][:1] == [20000]


def test_the_safe_position_never_goes_back(tmp_path: Path) -> None:
    """A walsender that begins again first tells positions from where it reads on, which the slot was past already."""
    feed = Feed(tmp_path)
    feed.put(*transaction(50))
    await_(lambda: feed.spooler.durable == 50)
    feed.spooler.begin(threading.Event())
    feed.put(keepalive(20), data(20, b"I"))
    feed.put(keepalive(30))
    feed.written()
    feed.spooler.close()
    assert feed.spooler.durable == 50
    assert SpoolWriter(tmp_path, 1000).durable == 50
    assert [block.safe for dummy, block in read_all(tmp_path)] == [50, 50, 50]
