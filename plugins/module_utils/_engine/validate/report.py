# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The result of a validation: as data, as a table that a person reads at a glance, as JSON and HTML files."""

from __future__ import annotations

import dataclasses
import datetime
import html
import json
import os
import time
import typing as t
from pathlib import Path

from ..spec import MigrationSpec
from .registry import FAILED, RANK, SUCCEEDED, WARNING, Finding


@dataclasses.dataclass
class Report:
    """All findings of one validation, in the order in which the checks ran. Times are seconds since the epoch; ``seconds`` is how long it
    took, from ``began`` of the monotonic clock."""

    spec: MigrationSpec
    findings: list[Finding] = dataclasses.field(default_factory=list)
    databases: list[str] = dataclasses.field(default_factory=list)
    started: float = dataclasses.field(default_factory=time.time)
    ended: float = 0.0
    seconds: float = 0.0
    began: float = dataclasses.field(default_factory=time.monotonic)
    canceled: bool = False
    spans: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def finish(self, *, canceled: bool = False) -> None:
        """Note the end."""
        self.ended = time.time()
        self.seconds = time.monotonic() - self.began
        self.canceled = canceled

    @property
    def status(self) -> str:
        """``Failed`` if anything failed, else ``Warning`` if there is one, else ``Succeeded`` (R46, R48)."""
        return _worst(self.findings)

    @property
    def passed(self) -> bool:
        """May the migration start?"""
        return self.status != FAILED and not self.canceled

    def problems(self) -> list[Finding]:
        """What is not ``Succeeded``, worst first."""
        return sorted((f for f in self.findings if f.severity != SUCCEEDED), key=lambda f: -RANK[f.severity])

    def failures(self) -> list[Finding]:
        """What failed."""
        return [f for f in self.findings if f.severity == FAILED]

    def summary(self) -> str:
        """One line: ``Warning (2 of 61)``."""
        count = len(self.problems())
        return f"{self.status} ({count} of {len(self.findings)})" if count else f"{self.status} ({len(self.findings)} checks)"

    def to_dict(self) -> dict[str, t.Any]:
        """The whole report as plain data (no secret): overall, the instance's part, one part for each database (R82), all findings."""
        databases = []
        for name in self.databases:
            mine = [f for f in self.findings if f.database == name]
            begun, ended = self.spans.get(name, (self.started, self.ended))
            part = {
                "name": name,
                "status": _worst(mine),
                "started": _iso(begun),
                "ended": _iso(ended),
                "findings": [f.to_dict() for f in mine],
            }
            databases.append(part)
        instance = [f for f in self.findings if not f.database]
        return {
            "status": self.status,
            "passed": self.passed,
            "canceled": self.canceled,
            "summary": self.summary(),
            "migration": self.spec.name,
            "source": self.spec.source.public(),
            "target": self.spec.target.public(),
            "started": _iso(self.started),
            "ended": _iso(self.ended or time.time()),
            "seconds": round(self.seconds, 3),
            "instance": {"status": _worst(instance)},
            "databases": databases,
            "findings": [f.to_dict() for f in self.findings],
            "table": self.table(),
        }

    def table(self) -> list[str]:
        """Lines for people: the connections and whatever is not as it should be, with code, message, fix, who may
        run it and whether a restart follows; the rest is a number,
        and named in the files."""
        shown = [f for f in self.findings if f.severity != SUCCEEDED or f.check.startswith("connectivity")]
        rows: list[tuple[str, str, str, str]] = []
        for finding in shown:
            code = f"{finding.code}  " if finding.severity != SUCCEEDED else ""
            rows.append((finding.database or "instance", finding.check, finding.severity, code + finding.message))
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        lines = []
        for row, finding in zip(rows, shown, strict=True):
            words = [word.ljust(width) for word, width in zip(row[:3], widths, strict=True)]
            lines.append("  ".join([*words, row[3]]).rstrip())
            if finding.severity != SUCCEEDED and finding.fix:
                lines.append(" " * (sum(widths) + 6) + f"Fix ({_duty(finding)}): {finding.fix}")
        if len(shown) < len(self.findings):
            lines.append(f"{len(self.findings) - len(shown)} further checks Succeeded")
        lines.append(f"Overall  {self.summary()}" + ("  canceled" if self.canceled else ""))
        return lines

    def write_json(self, path: Path) -> Path:
        """The report as JSON at ``path`` (mode 0600)."""
        return _write(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False, default=str) + "\n")

    def write_html(self, path: Path) -> Path:
        """The report as one self-contained page at ``path`` (mode 0600)."""
        return _write(path, self.html())

    def html(self) -> str:
        """The page: no script, nothing loaded from elsewhere."""
        spec = self.spec
        head = f"{spec.name}: {spec.source.host}:{spec.source.port} to {spec.target.host}:{spec.target.port}"
        parts = [("Instance", [f for f in self.findings if not f.database])]
        parts += [(f"Database {name}", [f for f in self.findings if f.database == name]) for name in self.databases]
        body = "".join(_section(title, findings) for title, findings in parts if findings)
        when = f"{_iso(self.started)}, {self.seconds:.1f} s"
        return _PAGE.format(
            title=html.escape(f"Validation of {spec.name}"),
            head=html.escape(head),
            status=html.escape(self.status),
            summary=html.escape(self.summary()),
            when=html.escape(when),
            body=body,
        )


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884 }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere }}
td:nth-child(-n+3) {{ white-space: nowrap }}
.Succeeded {{ color: #1a7f37 }} .Warning {{ color: #b26a00 }} .Failed {{ color: #cf222e }}
.state {{ font-weight: 600 }}
code {{ display: block; white-space: pre-wrap; margin-top: .25rem; opacity: .85 }}
small {{ opacity: .7 }}
</style></head><body>
<h1>{title}</h1>
<p>{head}<br><small>{when}</small></p>
<p class="state {status}">{summary}</p>
{body}
</body></html>
"""


def _section(title: str, findings: t.Sequence[Finding]) -> str:
    rows = []
    for f in findings:
        code = html.escape(f.code + (f" / {f.azure_code}" if f.azure_code else ""))
        duty = f"<br><small>{html.escape(_duty(f))}</small>"
        fix = f"<code>{html.escape(f.fix)}</code>{duty}" if f.fix and f.severity != SUCCEEDED else ""
        state = f'<td class="state {f.severity}">{f.severity}</td>'
        rows.append(f"<tr>{state}<td>{html.escape(f.check)}</td><td><small>{code}</small></td><td>{html.escape(f.message)}{fix}</td></tr>")
    head = "<tr><th>State</th><th>Check</th><th>Code</th><th>What was seen</th></tr>"
    return f"<h2>{html.escape(title)} <small>{_worst(findings)}</small></h2><table>{head}{''.join(rows)}</table>\n"


def _duty(finding: Finding) -> str:
    """Who may run the fix, and whether the server must be restarted for it."""
    return finding.who + ("; restart" if finding.restart else "; no restart")


def _worst(findings: t.Iterable[Finding]) -> str:
    worst = max((RANK[f.severity] for f in findings), default=0)
    return {0: SUCCEEDED, 1: WARNING, 2: FAILED}[worst]


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _write(path: Path, text: str) -> Path:
    """Replace ``path`` at once, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
    return path
