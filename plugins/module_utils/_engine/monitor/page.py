# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The page of a migration: one self-contained HTML file that is the live view while it runs and the report afterwards.

Nothing is loaded from elsewhere, and the page's own policy (CSP) forbids it; the only script that may run is ours, by its hash. What comes
from servers, specifications and errors is escaped by construction (:mod:`.markup`). A status dict holds no secret, so the page cannot.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import typing as t

from ..migration.states import ACTIVE, State
from . import parts
from .after import after_part
from .chart import chart, rates, thin
from .history import Sample
from .markup import Html, el, join
from .notes import notes_part
from .style import CSS, SCRIPT
from .text import COLUMNS, SHOWN_STATE, SHOWN_TYPE, Status, cells, clock, duration, human_bytes, human_seconds, verified_text

REFRESH_SECONDS = 5
LISTED = 8
"""Migrations of the list that are shown at once."""

COLORS = {
    "InProgress": "blue",
    "WaitingForUserAction": "amber",
    "Succeeded": "green",
    "Failed": "red",
    "ValidationFailed": "red",
    "Canceled": "grey",
    "CleaningUp": "grey",
}
_SEVERITY = {"Succeeded": "green", "Warning": "amber", "Failed": "red"}
_STEPS = (
    ("PerformingPreRequisiteSteps", "Prerequisites"),
    ("ValidationInProgress", "Validation"),
    ("MigratingData", "Copy"),
    ("WaitingForCutoverTrigger", "Following"),
    ("CompletingMigration", "Cutover"),
    ("Completed", "Done"),
)


def render(status: Status, statuses: t.Sequence[Status], samples: t.Sequence[Sample], written: float, *, live: bool = True) -> str:
    """The page.

    :param status: the migration that it is about.
    :param statuses: all migrations of the host, newest first.
    :param written: the present moment, seconds since the epoch.
    :param live: the file is written again while the migration is active, so the page reloads itself until it is over.
    """
    reloads = live and State(status["state"]) in ACTIVE
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="refresh", content=str(REFRESH_SECONDS)) if reloads else None,
        el("title", f"{status['name']} · PostgreSQL migration"),
        el("style", Html(CSS)),
    )
    body = el("body", el("main", _body(status, statuses, samples, written, reloads, live)), el("script", Html(SCRIPT)))
    return "<!DOCTYPE html>\n" + el("html", head, body, lang="en") + "\n"


def _body(
    status: Status, statuses: t.Sequence[Status], samples: t.Sequence[Sample], written: float, reloads: bool, live: bool
) -> t.Iterator[Html | None]:
    yield from _hero(status, written, reloads)
    yield _tiles(status)
    yield _route(status)
    if status["option"] != "validate":
        yield el("h2", "Migration")
        yield _charts(status, samples)
        yield from (el("div", card, style="margin-top:12px") for card in _cards(status))
    yield from _validation(status)
    yield from _events(status)
    yield el("h2", "Migrations of this runtime host")
    yield el("div", _list(status, statuses, live), cls="card")
    engine = f" Engine {status['engine']}." if status.get("engine") else ""
    yield el("footer", f"Written by pgops.migration at {_iso(written)}.{engine} Log on the runtime host: {status['files']['log']}")


def _hero(status: Status, written: float, reloads: bool) -> t.Iterator[Html | None]:
    state = status["state"]
    pill = el("span", SHOWN_STATE.get(state, state), cls=f"pill {COLORS.get(state, 'grey')}")
    again = f" · reloads every {REFRESH_SECONDS} s" if reloads else ""
    yield el("header", el("h1", status["name"], pill), el("span", f"as of {_iso(written)}{again}", cls="small mute"))
    kind = f"{SHOWN_TYPE.get(status['option'], status['option'])}, {status['mode']}"
    yield el("p", el("span", f"{kind} · ", cls="mute"), " · ".join(str(status.get("summary") or "").split("  ")), cls="lead")
    yield _steps(status)
    error = status.get("error")
    if error:
        hint = el("p", f"What to do: {error['hint']}") if error.get("hint") else None
        yield el("div", el("p", el("b", f"{error.get('code', '')} "), str(error.get("message", ""))), hint, cls="card alert red")
    if reloads:
        text = join(["This page was written ", el("b", ""), " ago: the service of the migration may not run. Play migrate again to go on."])
        yield el("div", el("p", text), cls="card alert amber stale", id="stale", hidden=True, data_written=f"{written:.0f}")


def _steps(status: Status) -> Html:
    left_out = set()
    if status["mode"] != "online":
        left_out.add("WaitingForCutoverTrigger")
    if status["option"] == "validate":
        left_out |= {"MigratingData", "WaitingForCutoverTrigger", "CompletingMigration"}
    if status["option"] == "migrate":
        left_out.add("ValidationInProgress")
    shown = [(key, text) for key, text in _STEPS if key not in left_out]
    keys = [key for key, dummy in shown]
    present = keys.index(status["substate"]) if status["substate"] in keys else 0
    color = COLORS.get(status["state"], "grey")
    items = []
    for place, (dummy, text) in enumerate(shown):
        over = place < present or status["state"] == "Succeeded"
        text = "Completion" if text == "Cutover" and status["mode"] != "online" else text
        items.append(el("li", el("span", text), cls="done" if over else f"now {color}" if place == present else None))
    return el("ol", items, cls="steps")


def _tiles(status: Status) -> Html:
    progress = list((status.get("progress") or {}).values())
    total, done = (sum(int(figures.get(key) or 0) for figures in progress) for key in ("bytes_total", "bytes_done"))
    tiles: list[tuple[str, str, str]] = [("Duration", duration(status["duration_seconds"]), f"since {clock(status['started'])[5:]} UTC")]
    if total:
        tiles.append(("Copied", f"{100 * done / total:.0f} %", f"{human_bytes(done)} of {human_bytes(total)}"))
    streams = [figures for figures in progress if figures.get("applied_lsn")]
    if streams:
        applied = sum(int(figures.get("applied") or 0) for figures in streams)
        pace = sum(float(figures.get("changes_per_second") or 0) for figures in streams)
        tiles.append(
            ("Changes applied", f"{applied:,}", f"{pace:,.0f} /s" if status["state"] in ("InProgress", "WaitingForUserAction") else "")
        )
        known = [float(figures["latency_seconds"]) for figures in streams if figures.get("latency_seconds") is not None]
        if status["state"] != "Succeeded":
            tiles.append(("Latency", human_seconds(max(known)) if len(known) == len(streams) else "not known", "of the slowest database"))
            held = [int(figures["retained_wal_bytes"]) for figures in streams if figures.get("retained_wal_bytes") is not None]
            tiles.append(("Retained WAL", human_bytes(max(held)) if held else "not known", "held on the source"))
    pause = (status.get("cutover") or {}).get("pause_seconds")
    if pause is not None:
        tiles.append(("Write pause", human_seconds(float(pause)), "fence to release"))
    verification = status.get("verification")
    verified = status.get("verified")
    if verified and not verification:
        shown = "equal" if verified["equal"] else "DIFFERS"
        tiles.append(("Verified", shown, verified_text(status)))
    if verification:
        rows = sum(int(result.get("rows") or 0) for result in verification["databases"].values())
        tiles.append(("Verified", "equal" if verification["equal"] else "DIFFERS", f"{rows:,} rows compared"))
    validation = status.get("validation")
    if validation and not verification:
        tiles.append(("Validation", str(validation["status"]), str(validation.get("summary") or "")))
    return el("section", [el("div", el("span", name), el("b", value), el("small", small)) for name, value, small in tiles], cls="tiles")


def _route(status: Status) -> Html:
    def side(name: str) -> Html:
        end = status[name]
        return el(
            "div",
            el("span", f"{name} · {end['type'].replace('_', ' ')}", cls="small mute"),
            el("p", el("b", f"{end['host']}:{end['port']}")),
            el("span", f"as {end['user']}, sslmode {end['sslmode']}", cls="small mute"),
            cls="card",
        )

    return el("section", side("source"), el("i", "→"), side("target"), cls="route")


def _charts(status: Status, samples: t.Sequence[Sample]) -> Html:
    few = thin(samples)
    marks = [(other.moment, other.substate) for one, other in zip(samples, samples[1:], strict=False) if one.substate != other.substate]
    charts = [chart("Copy", rates(few, lambda s: s.moved), lambda v: f"{human_bytes(v)}/s", color="blue", marks=marks)]
    if status["mode"] == "online":
        charts += [
            chart("Changes applied", rates(few, lambda s: s.applied), lambda v: f"{v:,.0f}/s", color="green", marks=marks),
            chart("Latency", [(s.moment, s.latency) for s in few], human_seconds, color="violet", marks=marks),
            chart("Retained WAL", [(s.moment, s.retained) for s in few], human_bytes, color="amber", marks=marks),
        ]
    return el("section", charts, cls="charts")


def _cards(status: Status) -> list[Html]:
    found = [
        parts.databases(status),
        parts.cutover(status),
        parts.proof(status),
        after_part(status),
        notes_part(status),
        *parts.tables(status),
    ]
    return [card for card in found if card]


def _validation(status: Status) -> t.Iterator[Html]:
    report = status.get("validation")
    if not report:
        return
    findings = report.get("findings") or []
    bad = [finding for finding in findings if finding["severity"] != "Succeeded"]
    fine = [finding for finding in findings if finding["severity"] == "Succeeded"]
    bad.sort(key=lambda finding: finding["severity"] != "Failed")
    yield el("h2", "Validation")
    summary = el("span", str(report["status"]), cls=f"pill {_SEVERITY.get(report['status'], 'grey')}")
    words = f"  {len(findings)} checks in {human_seconds(report.get('seconds'))}: {len(fine)} succeeded, {len(bad)} to look at"
    rest = el("details", el("summary", f"{len(fine)} checks that succeeded"), _findings(fine), id="fine") if fine else None
    yield el("div", el("p", summary, words, style="margin-bottom:10px"), _findings(bad) if bad else None, rest, cls="card")


def _findings(findings: t.Sequence[t.Mapping[str, t.Any]]) -> Html:
    rows = []
    for finding in findings:
        good = finding["severity"] == "Succeeded"
        word = el("span", finding["severity"], cls=f"word {_SEVERITY.get(finding['severity'], 'grey')}")
        code = finding["code"] + (f" / {finding['azure_code']}" if finding.get("azure_code") else "")
        fix = el("code", str(finding.get("fix") or ""), cls="fix") if finding.get("fix") and not good else None
        duty = (
            el("small", f"{finding['who']}; {'restart' if finding.get('restart') else 'no restart'}")
            if fix and finding.get("who")
            else None
        )
        message = el("div", str(finding.get("message") or ""), fix, duty)
        rows.append([str(finding["check"]), word, finding.get("database") or "instance", code, message])
    return parts.table(("Check", "Result", "Scope", "Code", "What was seen"), rows, texts=(4,))


def _events(status: Status) -> t.Iterator[Html]:
    events = list(reversed(status.get("events") or []))
    if not events:
        return

    def render_events(some: t.Sequence[t.Mapping[str, t.Any]]) -> Html:
        colors = {"error": "word red", "warning": "word amber"}
        lines = [
            el("tr", el("td", event["time"][:19].replace("T", " ")), el("td", el("span", event["text"], cls=colors.get(event["level"]))))
            for event in some
        ]
        return el("table", el("tbody", lines), cls="log")

    yield el("h2", "Events, newest first")
    yield el("div", parts.folded("events", events, 8, render_events, "earlier events"), cls="card")


def _list(status: Status, statuses: t.Sequence[Status], live: bool) -> Html:
    def render_rows(some: t.Sequence[Status]) -> Html:
        rows = []
        for one in some:
            texts: list[parts.Cell] = [*cells(one)]
            if live and one["key"] != status["key"]:
                texts[0] = el("a", one["name"], href=f"../{one['key']}/report.html")
            texts[1] = el("span", str(texts[1]), cls=f"word {COLORS.get(one['state'], 'grey')}")
            rows.append(texts)
        return parts.table(COLUMNS, rows)

    return parts.folded("migrations", list(statuses), LISTED, render_rows, "earlier migrations")


def _iso(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
