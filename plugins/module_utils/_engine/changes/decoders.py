# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Which decoder reads what a plugin wrote, and which reader of the spool feeds it."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ..source.plugin import PluginChoice
from .ends import EndsReader
from .events import Decoder
from .pgoutput import PgoutputDecoder
from .spool import SpoolReader
from .testdecoding import TextDecoder
from .wal2json import Wal2JsonDecoder

KIND_AT: t.Mapping[str, int] = {"pgoutput": 0, "test_decoding": 0, "wal2json": len(b'{"action":"')}
"""Where in a plugin's message the byte is that tells its kind: ``B`` and ``C`` begin and end a transaction."""


def make_decoder(choice: PluginChoice) -> Decoder:
    """A decoder that has read nothing yet."""
    if choice.plugin == "test_decoding":
        return TextDecoder(choice.streamed)
    return PgoutputDecoder() if choice.plugin == "pgoutput" else Wal2JsonDecoder()


def make_reader(decoder: Decoder, spool: Path, position: int | None) -> SpoolReader | EndsReader:
    """The blocks of ``spool`` for ``decoder``, from ``position`` on."""
    return EndsReader(spool, position, decoder.ends) if isinstance(decoder, TextDecoder) else SpoolReader(spool, position)
