# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Keeping secrets out of everything that a module returns: messages, statements, differences, reports (law 11).

Ansible masks the values of ``no_log`` options by itself; this masks what it cannot know: verifiers and passwords inside SQL,
connection strings and whatever a server quotes back.
"""

from __future__ import annotations

import re
import typing as t
import urllib.parse

MASK = "********"
SHORTEST = 4
"""A secret shorter than this is not masked inside other text: it would mask half of the message."""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+"), MASK),
    (re.compile(r"\bmd5[0-9a-f]{32}\b"), MASK),
    (re.compile(r"(?i)(\bPASSWORD\s+)(?:E?'(?:[^']|'')*')"), rf"\1'{MASK}'"),
    (re.compile(r"(?i)(\bpassword\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s'\"]+)"), rf"\1{MASK}"),
    (re.compile(r"(postgres(?:ql)?://[^\s:/@]+:)[^\s@]+@"), rf"\1{MASK}@"),
)


class Redactor:
    """Masks ``secrets`` and everything that looks like one."""

    def __init__(self, secrets: t.Iterable[str | None]) -> None:
        self._forms: list[str] = []
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str | None) -> None:
        """Mask ``secret`` too."""
        if secret and len(secret) >= SHORTEST:
            forms = {secret, secret.replace("'", "''"), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}
            self._forms = sorted(forms.union(self._forms), key=len, reverse=True)

    def text(self, value: str) -> str:
        """``value`` without secrets."""
        for form in self._forms:
            value = value.replace(form, MASK)
        for pattern, replacement in _PATTERNS:
            value = pattern.sub(replacement, value)
        return value

    def clean(self, value: t.Any) -> t.Any:
        """``value``, plain data of any depth, without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.clean(key): self.clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.clean(item) for item in value]
        return value
