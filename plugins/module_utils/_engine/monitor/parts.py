# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The parts of the page about the migration itself: databases, tables, cutover, proof, and what to see to afterwards."""

from __future__ import annotations

import typing as t

from .markup import Html, el, join
from .text import Status, human_bytes, human_seconds, large_objects_text, stall_text

TABLES_OPEN = 15
"""Tables that are shown at once; the others are folded away."""

_ORDER = {"errored": 0, "loading": 1, "queued": 2, "complete": 3}
_COLOR = {"errored": "red", "loading": "blue", "queued": "grey", "complete": "green"}
Cell = t.Union[Html, str, None]


def table(
    heads: t.Sequence[str],
    rows: t.Sequence[t.Sequence[Cell]],
    *,
    numbers: t.Collection[int] = (),
    texts: t.Collection[int] = (),
    cls: str = "stack",
) -> Html:
    """A table whose first column is the name of the row; on a narrow screen each row becomes a block.

    :param numbers: columns to align to the right.
    :param texts: columns of running text, which get the whole width there.
    """

    def kind(place: int) -> str | None:
        return "num" if place in numbers else "text" if place in texts else "name" if place == 0 else None

    head = el("tr", [el("th", text, cls="num" if place in numbers else None) for place, text in enumerate(heads)])
    body = [el("tr", [el("td", cell or "", cls=kind(n), data_label=heads[n]) for n, cell in enumerate(row)]) for row in rows]
    return el("table", el("thead", head), el("tbody", body), cls=cls)


def folded(key: str, items: t.Sequence[t.Any], most: int, render: t.Callable[[t.Sequence[t.Any]], Html], words: str) -> Html:
    """``items`` rendered, those after the first ``most`` behind a click."""
    if len(items) <= most + 3:
        return render(items)
    rest = el("details", el("summary", f"{len(items) - most} {words}"), render(items[most:]), id=key)
    return join([render(items[:most]), rest])


def filled_bar(share: float | None, color: str) -> Html:
    """A bar filled to ``share`` (0 to 1)."""
    width = 0.0 if share is None else min(1.0, max(0.0, share))
    return el("span", el("i", style=f"width:{100 * width:.1f}%"), cls=f"bar {color}")


def count(value: t.Any) -> str:
    """A whole number with its thousands apart; empty for None."""
    return "" if value is None else f"{int(value):,}"


def databases(status: Status) -> Html | None:
    """A row a database (R86)."""
    progress = status.get("progress") or {}
    if not progress:
        return None
    heads = ("Database", "Phase", "Copied", "Tables", "Indexes", "Inserts", "Updates", "Deletes", "Latency", "Retained WAL", "Plugin")
    rows = []
    for name, figures in progress.items():
        plugin = (status.get("plugin") or {}).get(name) or {}
        rows.append(
            [
                name,
                join([phase_of(figures), message(figures)]),
                copied_bar(figures),
                _of(figures.get("tables_complete"), _tables(figures)) + _errored(figures),
                _of(figures.get("indexes_done"), figures.get("indexes_total")),
                count(figures.get("inserts")),
                count(figures.get("updates")),
                count(figures.get("deletes")),
                human_seconds(figures.get("latency_seconds")),
                "" if figures.get("retained_wal_bytes") is None else human_bytes(figures["retained_wal_bytes"]),
                el("span", plugin["plugin"], title=str(plugin.get("reason") or "")) if plugin else None,
            ]
        )
    return el("div", el("h3", "Databases"), table(heads, rows, numbers=range(3, 10), cls="stack dense"), cls="card")


def phase_of(figures: t.Mapping[str, t.Any]) -> Html:
    """The phase of a database as a word in its colour."""
    phase, state = str(figures.get("phase") or ""), str(figures.get("state") or "")
    failed = state in ("Failed", "ValidationFailed")
    color = "red" if failed else {"finished": "green", "streaming": "violet", "queued": "grey"}.get(phase, "blue")
    step = f" · {figures['step']}" if phase == "copying" and figures.get("step") else ""
    return el("span", (state if failed else phase) + step, cls=f"word {color}")


def message(figures: t.Mapping[str, t.Any]) -> Html | None:
    """What a database has to say: why nothing moves, a warning, or the verdict about its catching up."""
    verdict = str(figures.get("verdict") or "")
    text = stall_text(figures.get("stalled")) or str(figures.get("message") or "") or (verdict if verdict.startswith("will not") else "")
    return el("span", text, cls="fix small") if text else None


def copied_bar(figures: t.Mapping[str, t.Any]) -> Html | None:
    """Bytes copied of all, with rate and time left while it runs."""
    total = figures.get("bytes_total")
    if not total:
        return None
    done = int(figures.get("bytes_done") or 0)
    words = f"{human_bytes(done)} of {human_bytes(int(total))}"
    if figures.get("phase") == "copying" and figures.get("rate_bytes_per_second") and done < int(total):
        words += f" · {human_bytes(figures['rate_bytes_per_second'])}/s"
        words += f" · {human_seconds(figures['eta_seconds'])} left" if figures.get("eta_seconds") else ""
    if large := large_objects_text(figures):
        words += f" · {large}"
    return el(
        "div", filled_bar(done / int(total), "green" if done >= int(total) else "blue"), el("span", words, cls="small mute"), cls="done"
    )


def tables(status: Status) -> list[Html]:
    """A bar a table, for each database; those that are being copied first, then the largest."""
    found = []
    for name, figures in (status.get("progress") or {}).items():
        rows = table_rows(figures, ((status.get("verification") or {}).get("databases") or {}).get(name))
        if rows:
            total = _tables(figures) or len(rows)
            title = f"Tables of {name}" + (f" (the {len(rows)} largest of {total:,})" if total > len(rows) else "")
            shown = folded(f"tables-{name}", rows, TABLES_OPEN, _tables_table, "more tables")
            found.append(el("div", el("h3", title), shown, cls="card"))
    return found


def table_rows(figures: t.Mapping[str, t.Any], verified: t.Mapping[str, t.Any] | None) -> list[dict[str, t.Any]]:
    """What is known about each table of a database, from copy, stream and verification."""
    rows: dict[str, dict[str, t.Any]] = {}
    for label, entry in (figures.get("copied") or {}).items():
        rows[label] = {"label": label, **entry}
    for label, counts in (figures.get("tables") or {}).items():
        rows.setdefault(label, {"label": label}).update(counts)
    for result in (verified or {}).get("tables") or []:
        if result["label"] in rows:
            rows[result["label"]].update(verified=result, rows=result["rows_source"])
    return sorted(rows.values(), key=lambda row: (_ORDER.get(str(row.get("state")), 3), -int(row.get("bytes") or 0), row["label"]))


def _tables_table(rows: t.Sequence[dict[str, t.Any]]) -> Html:
    heads = ["Table", "Copied", "Rows", "Inserts", "Updates", "Deletes", "Equal"]
    cells = [_table_row(row) for row in rows]
    kept = [place for place in range(len(heads)) if place < 2 or any(row[place] for row in cells)]
    numbers = [place for place, column in enumerate(kept) if column in range(2, 6)]
    return table(
        [heads[column] for column in kept], [[row[column] for column in kept] for row in cells], numbers=numbers, cls="stack dense"
    )


def _table_row(row: t.Mapping[str, t.Any]) -> list[Cell]:
    size, state = row.get("bytes"), str(row.get("state") or "")
    copied = None
    if size is not None:
        done = int(row.get("done") or 0)
        share = done / size if size else float(state == "complete")
        words = human_bytes(size) if state == "complete" else f"{state} · {human_bytes(done)} of {human_bytes(size)}"
        copied = el("div", filled_bar(share, _COLOR.get(state, "blue")), el("span", words, cls="small mute"), cls="done")
    counts = [count(row.get(key)) for key in ("inserts", "updates", "deletes")]
    return [row["label"], copied, count(row.get("rows")), *counts, _verdict(row.get("verified"))]


def _verdict(result: t.Mapping[str, t.Any] | None) -> Html | None:
    if not result:
        return None
    if result.get("equal"):
        return el("span", "equal", cls="word green", title=f"digest {result.get('digest', '')}")
    note = str(result.get("note") or f"{len(result.get('differences') or [])} rows named in the certificate")
    word = "DIFFERS" if result.get("compared", True) else "not compared"
    return join([el("span", word, cls="word red" if result.get("compared", True) else "word amber"), el("span", note, cls="fix small")])


def cutover(status: Status) -> Html | None:
    """The phases with their seconds, and the pause that writers felt (R118)."""
    done = status.get("cutover")
    if not done:
        return None
    phases = done.get("phases") or []
    longest = max([float(phase["seconds"]) for phase in phases] or [0.0]) or 1.0
    rows: list[list[Cell]] = [
        [str(p["name"]), filled_bar(float(p["seconds"]) / longest, "violet"), human_seconds(float(p["seconds"])), str(p["text"])]
        for p in phases
    ]
    facts = []
    if done.get("pause_seconds") is not None:
        facts.append(f"Writers were paused for {human_seconds(float(done['pause_seconds']))}.")
    if done.get("released_at"):
        facts.append(f"Released at {done['released_at']}.")
    facts += [f"{database}: every commit up to {lsn}." for database, lsn in (done.get("lsn") or {}).items()]
    given_back = done.get("given_back")
    alert = (
        el("p", f"Given back: {given_back['message']} The source is writable and the stream goes on.", cls="word amber")
        if given_back
        else None
    )
    shown = table(("Phase", "", "Seconds", "What was done"), rows, numbers=(2,), texts=(3,), cls="stack phases") if rows else None
    return el("div", el("h3", "Cutover"), alert, shown, el("p", " ".join(facts), cls="small mute"), cls="card")


def proof(status: Status) -> Html | None:
    """The verification, a row a database, and where the certificate is (R109)."""
    verification = status.get("verification")
    if not verification:
        return None
    rows: list[list[Cell]] = []
    for name, result in verification["databases"].items():
        compared = result.get("tables") or []
        equal = sum(1 for one in compared if one.get("equal"))
        sequences = result.get("sequences") or []
        verdict = el("span", "equal" if result.get("equal") else "DIFFERS", cls=f"word {'green' if result.get('equal') else 'red'}")
        same = [one for one in sequences if one.get("equal")]
        schema = result.get("schema") or []
        definitions = "equal" if result.get("schema_equal") else f"{len(schema)} differ"
        rows.append(
            [name, verdict, count(result.get("rows")), _of(equal, len(compared)), _of(len(same), len(sequences)), definitions,
             human_seconds(result.get("seconds"))]
        )  # fmt: skip
    heads = ("Database", "Content", "Rows", "Tables equal", "Sequences equal", "Definitions", "Time")
    where = el(
        "p", f"As of the cutover, compared at {verification.get('time', '')}. Certificate: {status['files']['report']}", cls="small mute"
    )
    return el("div", el("h3", "Proof"), table(heads, rows, numbers=(2, 3, 4, 6)), where, cls="card")


def _tables(figures: t.Mapping[str, t.Any]) -> int:
    return sum(int(figures.get(f"tables_{state}") or 0) for state in ("queued", "loading", "complete", "errored"))


def _errored(figures: t.Mapping[str, t.Any]) -> str:
    return f", {figures['tables_errored']} errored" if figures.get("tables_errored") else ""


def _of(done: t.Any, total: t.Any) -> str:
    return f"{int(done or 0):,} of {int(total):,}" if total else ""
