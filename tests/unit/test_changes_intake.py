# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The receiver's look at its buffer: however the network cuts the stream, the chunks are its frames, and safe positions are commits."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.changes.intake import Chunk, Scanner
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import StreamError
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.replication import ServerRefused
from ansible_collections.pgops.migration.plugins.module_utils._engine.postgres.walstream import SPARE, WalStream
from frames import data, keepalive
from hypothesis import given
from hypothesis import strategies as st

HISTORY = st.lists(
    st.one_of(
        st.lists(st.tuples(st.sampled_from([b"I", b"U", b"R", b"Y"]), st.binary(min_size=5, max_size=40)), max_size=4),
        st.just("keepalive"),
        st.just("asking"),
    ),
    max_size=12,
)


def wire(history: list[t.Any]) -> tuple[list[bytes], list[int]]:
    """The frames of a history, and the safe position behind each (0: a transaction is open)."""
    frames, safe, lsn = [], [], 100
    for item in history:
        lsn += 10
        if isinstance(item, str):
            frames.append(keepalive(lsn, reply=item == "asking"))
            safe.append(lsn)
            continue
        for frame in (data(lsn, b"B......"), *(data(lsn, kind + rest) for kind, rest in item)):
            frames.append(frame)
            safe.append(0)
        frames.append(data(lsn + 5, b"C......"))
        safe.append(lsn + 5)
    return frames, safe


@given(HISTORY, st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_chunks_are_the_frames_wherever_the_network_cuts(history: list[t.Any], portions: list[int]) -> None:
    """Nothing is lost or doubled; ``cut``, ``safe`` and the descriptions are those of the frames within."""
    frames, safe = wire(history)
    whole, scanner, buffer, got, at, turn = b"".join(frames), Scanner(0, describes=True), b"", b"", 0, 0
    done = 0
    while at < len(whole):
        size = portions[turn % len(portions)]
        turn += 1
        buffer += whole[at : at + size]
        at += size
        chunk = scanner.scan(bytearray(buffer + b"d" + bytes(SPARE)), len(buffer))
        buffer, got = buffer[len(chunk.body) :], got + chunk.body
        mine, positions = frames[done : done + chunk.count], safe[done : done + chunk.count]
        assert b"".join(mine) == chunk.body
        assert not chunk.foreign
        assert chunk.messages == sum(1 for f in mine if f[5:6] == b"w")
        outside = [i for i, position in enumerate(positions) if position]
        assert chunk.safe == (positions[outside[-1]] if outside else 0)
        assert chunk.body[: chunk.cut] == b"".join(mine[: outside[-1] + 1] if outside else [])
        assert chunk.cut_count == (outside[-1] + 1 if outside else 0)
        assert [d.frame for d in chunk.descriptions] == [f for f in mine if f[30:31] in (b"R", b"Y")]
        assert all(chunk.body[: d.end].endswith(d.frame) and d.key == d.frame[30:35] for d in chunk.descriptions)
        assert chunk.reply == any(f[5:6] == b"k" and f[22] for f in mine)
        done += chunk.count
        assert chunk.is_open == (done > 0 and safe[done - 1] == 0)
    assert got == whole


def test_a_keepalive_within_a_transaction_is_no_safe_position() -> None:
    """Law 4: what is open is not acknowledged, whatever the server says of its own position."""
    body = data(10, b"B......") + keepalive(99)
    chunk = Scanner(0, describes=True).scan(bytearray(body + bytes(SPARE)), len(body))
    assert (chunk.safe, chunk.cut, chunk.is_open, chunk.count) == (0, 0, True, 2)


def test_what_is_no_frame_ends_a_chunk() -> None:
    """A notice or an error of the server is never taken for data; an unknown message is refused."""
    body = data(10, b"B......")
    for foreign in (b"N\x00\x00\x00\x05x", b"c\x00\x00\x00\x04", b"E\x00\x00\x00\x05\x00"):
        chunk: Chunk = Scanner(0, describes=True).scan(bytearray(body + foreign + bytes(SPARE)), len(body) + len(foreign))
        assert chunk.foreign and chunk.body == body
    strange = b"d\x00\x00\x00\x05z"
    with pytest.raises(StreamError):
        Scanner(0, describes=True).scan(bytearray(strange + bytes(SPARE)), len(strange))


def stream(content: bytes) -> WalStream:
    """A stream without a connection whose buffer holds ``content``."""
    made = object.__new__(WalStream)
    made.buffer, made.filled = bytearray(content) + bytearray(SPARE), len(content)
    return made


def test_the_server_speaks_between_frames() -> None:
    """Notices are passed over, errors are told with their SQLSTATE, half of a message waits for the rest."""
    notice = b"N\x00\x00\x00\x0cSNOTICE\x00"
    half = stream(notice[:-1])
    assert not half.skip() and half.filled == len(notice) - 1
    whole = stream(notice + b"rest")
    assert whole.skip() and bytes(whole.buffer[: whole.filled]) == b"rest"
    fields = b"SFATAL\x00C57P01\x00Mterminating connection\x00\x00"
    with pytest.raises(ServerRefused) as caught:
        stream(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields).skip()
    assert (caught.value.sqlstate, caught.value.message) == ("57P01", "terminating connection")
    with pytest.raises(ServerRefused):
        stream(b"c\x00\x00\x00\x04").skip()


def test_a_message_larger_than_the_buffer_gets_a_larger_one() -> None:
    """The buffer grows to what is announced, a step at a time, and shrinks again."""
    frame = data(10, b"x" * 5_000_000)
    made = stream(b"")
    made.buffer = bytearray((1 << 20) + SPARE)
    fed = 0
    while fed < len(frame):
        room = made.room()
        assert len(room) > 0
        size = min(len(room), len(frame) - fed)
        room[:size] = frame[fed : fed + size]
        made.filled += size
        fed += size
    assert bytes(made.buffer[: made.filled]) == frame
    made.consume(made.filled)
    assert made.filled == 0 and len(made.buffer) == (1 << 20) + SPARE
