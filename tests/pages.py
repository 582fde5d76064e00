# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a page of the documentation tells its reader to type, word for word."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

PROGRAMS = ("ansible-playbook ", "sudo /var/lib/pg_migration/pgm-status")
"""How a line begins that a reader types; the rest of the blocks are SQL, YAML and expressions of Prometheus."""


def commands(page: Path) -> list[str]:
    """The commands of a page of Markdown, in its order, each once: those of its blocks, without comments, and those within a sentence."""
    found = re.findall(r"^ {4,}(\S.*)$|`(ansible-playbook [^`]+ -i [^`]+)`", page.read_text(encoding="utf-8"), re.M)
    lines = (re.sub(r"\s+#.*$", "", block or inline) for block, inline in found)
    return list(dict.fromkeys(line for line in lines if line.startswith(PROGRAMS)))


def options(page: Path) -> list[str]:
    """The options that a page names to be added to a command, each once: ``-e name=value``."""
    return list(dict.fromkeys(re.findall(r"`(-e \w+=[^`]+)`", page.read_text(encoding="utf-8"))))


def blocks(text: str, indent: int) -> t.Iterator[str]:
    """The blocks of lines that are indented by ``indent`` or more, without the indentation."""
    for found in re.finditer(rf"(?:^ {{{indent},}}\S.*\n|(?<=\n)\n(?= {{{indent},}}\S))+", text, re.M):
        yield "\n".join(line[indent:] for line in found[0].strip("\n").split("\n"))
