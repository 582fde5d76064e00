# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The regression corpus (:mod:`corpora`) through each plugin."""

from __future__ import annotations

import pytest
import servers as lab
from changelab import PLUGINS, Start, same
from corpora import corpus, ddl_of, play


@pytest.mark.parametrize("plugin", PLUGINS)
def test_corpus(streaming: Start, source: lab.Server, plugin: str) -> None:
    """All of it is equal afterwards; the name of a table that is not says which file it is from."""
    cases = corpus(source.major)
    stream = streaming(plugin, ddl_of(cases))
    with stream.app() as conn:  # type: ignore[attr-defined]
        play(conn, cases, stream.choice)
    same(stream)
