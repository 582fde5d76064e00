# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What observers of a migration are shown: page, curves, Prometheus file; escaped, bounded, self-contained, without a made-up value."""

from __future__ import annotations

import copy
import html.parser
import os
import re
import stat
import typing as t
from pathlib import Path

import monitor_samples as given
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor import history, page, prometheus
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.chart import chart, rates, thin
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.files import write_text
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.history import MOST, History, Sample
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.markup import Html, el
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor.text import COLUMNS
from hypothesis import given as property_of
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

EVIL = """<script>alert(1)</script>"'&`{{x}}"""


class Reader(html.parser.HTMLParser):
    """Elements, attributes and text of a page; complains of tags that do not match."""

    VOID = ("meta", "col")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a person reads."""
        return " ".join(" ".join(self.words).split())


def rendered(status: dict[str, t.Any], **options: t.Any) -> str:
    """The page of ``status``."""
    return page.render(status, given.others(status), given.samples(), given.NOW, **options)


def evil(value: t.Any) -> t.Any:
    """``value`` with something evil before every text, but for those that the product itself chooses."""
    kept = ("state", "substate", "mode", "option", "phase", "created", "started", "ended", "severity", "time", "level")
    if isinstance(value, dict):
        return {EVIL + k if "." in k else k: v if k in kept else evil(v) for k, v in value.items()}
    if isinstance(value, list):
        return [evil(item) for item in value]
    return EVIL + value if isinstance(value, str) and value else value


# -- the page


@pytest.mark.parametrize("status", [given.following(), given.succeeded()], ids=["following", "succeeded"])
def test_page_is_whole_and_alone(status) -> None:
    """Well-formed; nothing is loaded from elsewhere, and the page's own policy forbids it."""
    text = rendered(status)
    reader = Reader(text)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//|url\(|@import", text)
    assert not [tag for tag, dummy in reader.tags if tag in ("link", "img", "iframe", "object", "form")]
    policy = next(attrs["content"] for tag, attrs in reader.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert (
        policy is not None and policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy and "unsafe-eval" not in policy
    )


def test_page_shows_list_and_both_parts() -> None:
    """R73, R82: the list's columns in their order; a part for the migration and one for the validation."""
    status = given.succeeded()
    text = Reader(rendered(status)).text
    assert " ".join(COLUMNS) in text
    assert text.index("Migration Copy") < text.index("Validation Warning")
    for words in ("public.order_item", "1,912,400,000", "1.02 s", "marker 4/7A0C1F28 applied", "certificate.json", "pg_partman", "equal"):
        assert words in text, words
    listed = text[text.index("Migrations of this runtime host") :]
    places = [listed.index(name) for name in ("shop-2026", "shop-rehearsal", "shop-look", "crm")]
    assert places == sorted(places)


def test_page_reloads_only_while_active_and_live() -> None:
    """A report that is kept does not reload itself, nor does a copy of it."""

    def reloads(status: dict[str, t.Any], **options: t.Any) -> bool:
        return any(attrs.get("http-equiv") == "refresh" for dummy, attrs in Reader(rendered(status, **options)).tags)

    assert reloads(given.following())
    assert not reloads(given.following(), live=False)
    for state in ("Succeeded", "Failed", "ValidationFailed", "Canceled"):
        assert not reloads({**given.succeeded(), "state": state})


def test_everything_is_escaped() -> None:
    """Names of tables, messages of servers, errors: whatever they hold, the page has no more elements than with plain ones."""
    plain = given.succeeded()
    plain["error"] = {"code": "PGM1", "message": "m", "hint": "h"}
    bad = evil(copy.deepcopy(plain))
    texts = [page.render(one, [one], [], given.NOW) for one in (plain, bad)]
    kinds = [[tag for tag, dummy in Reader(text).tags] for text in texts]
    assert kinds[0] == kinds[1]
    assert "alert(1)" in texts[1] and "<script>alert" not in texts[1]
    assert kinds[1].count("script") == 1


@property_of(st.text())
def test_text_comes_back_as_it_was(text: str) -> None:
    """Any text as content and as attribute is read back by a browser's rules as it was put in."""
    shown = text.replace("\r\n", "\n").replace("\r", "\n")
    reader = Reader(el("p", text, title=text))
    assert reader.tags == [("p", {"title": text})]
    assert "".join(reader.words).replace("\r\n", "\n").replace("\r", "\n") == shown
    assert el("p", Html("<b>x</b>")) == "<p><b>x</b></p>"


def test_page_of_a_beginning_and_of_a_validation_alone() -> None:
    """Nothing is known yet: no figure is invented; a validation has no part about a migration."""
    status = given.following()
    early = {**status, "state": "InProgress", "substate": "PerformingPreRequisiteSteps", "validation": None, "progress": {}, "plugin": {}}
    text = Reader(page.render(early, [early], [], given.NOW)).text
    assert "no data yet" in text and "Copied" not in text and "Validation 0" not in text
    looked = {**given.succeeded(), "option": "validate", "progress": {}, "cutover": None, "verification": None, "after": None}
    assert "Retained WAL" not in Reader(page.render(looked, [looked], [], given.NOW)).text


def test_differences_are_shouted() -> None:
    """A table that differs is named with its note, first of all that was verified."""
    status = given.succeeded()
    result = status["verification"]["databases"]["shop"]
    result["tables"][3].update(equal=False, note="2 rows more on the target")
    result["equal"] = status["verification"]["equal"] = False
    text = Reader(rendered(status)).text
    assert "DIFFERS" in text and "2 rows more on the target" in text


def test_many_tables_are_folded() -> None:
    """A thousand tables do not bury the rest."""
    status = given.following()
    status["progress"]["shop"]["copied"] = {f"s.t{n}": {"state": "queued", "bytes": n, "done": 0, "rows": 0} for n in range(1000)}
    status["progress"]["shop"]["copied"]["s.t7"]["state"] = "loading"
    status["progress"]["shop"]["tables"] = {}
    text = Reader(rendered(status)).text
    assert "985 more tables" in text
    assert text.index("s.t7 ") < text.index("s.t999 ") < text.index("985 more tables")


# -- curves and history


def test_rates_have_no_negative_and_no_infinite_value() -> None:
    """A service that began anew counts from zero: that is a gap, not a negative rate."""
    samples = [Sample(float(n), "MigratingData", moved, 0, None, None) for n, moved in enumerate([0, 10, 30, 5, 15])]
    assert rates(samples, lambda s: s.moved) == [(1.0, 10.0), (2.0, 20.0), (3.0, None), (4.0, 10.0)]
    same = [samples[0], samples[0]]
    assert rates(same, lambda s: s.moved) == []


def test_chart_interrupts_where_nothing_was_known() -> None:
    """Two runs, two lines; the area under them is closed."""
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 2.0), (4.0, 4.0), (100.0, 1.0), (101.0, 1.0)]
    drawn = chart("Latency", points, lambda v: f"{v} s", color="blue")
    assert drawn.count('class="curve"') == 3 and "peak 4.0 s" in drawn and "NaN" not in drawn
    assert "no data yet" in chart("Latency", points[:1], str, color="blue")


@property_of(st.lists(st.tuples(st.floats(0.01, 5), st.sampled_from(["a", "b"]), st.one_of(st.none(), st.floats(0, 9))), max_size=400))
def test_history_is_bounded_and_keeps_ends_and_peak(tmp_path_factory, steps) -> None:
    """Never more than MOST samples; the newest counter and the greatest latency since the older half are there."""
    kept = History(tmp_path_factory.getbasetemp() / "none.json")
    moment = 0.0
    for number, (seconds, substate, latency) in enumerate(steps * 10):
        moment += seconds
        kept.add(Sample(moment, substate, number, number, latency, None))
        assert len(kept.samples) <= MOST
    moments = [sample.moment for sample in kept.samples]
    assert moments == sorted(moments)


def test_history_of_weeks(tmp_path: Path) -> None:
    """A million looks: bounded, a peak of one look survives, the file is read back as it was written."""
    kept = History(tmp_path / "history.json")
    for number in range(0, 1_000_000, 2):
        latency = 77.0 if number == 420_000 else 1.0
        kept.add(Sample(float(number), "WaitingForCutoverTrigger", number, number, latency, None))
    assert MOST // 4 < len(kept.samples) <= MOST
    kept.save()
    again = History(tmp_path / "history.json")
    assert again.samples == kept.samples and again.period == kept.period
    assert (tmp_path / "history.json").stat().st_size < 60_000
    few = thin(kept.samples, 100)
    assert len(few) <= 120 and few[-1].moved == kept.samples[-1].moved


def test_look_makes_no_zero_of_what_is_not_known() -> None:
    """R91: the latency is unknown as long as one database's is."""
    status = given.following()
    assert history.look(status, 5.0).latency == 0.8
    status["progress"]["billing"]["latency_seconds"] = None
    seen = history.look(status, 5.0)
    assert seen.latency is None and seen.retained == 41 * given.MB
    assert history.look({"substate": "x", "progress": {}}, 5.0) == Sample(5.0, "x", 0, 0, None, None)


def test_figures_of_the_copy_outlive_the_service(tmp_path: Path) -> None:
    """A service that starts after the copy knows nothing of it; the report does."""
    kept = History(tmp_path / "history.json")
    kept.keep_copies(given.following())
    kept.save()
    status = given.following()
    status["progress"]["shop"] = {"phase": "streaming", "applied": 1}
    History(tmp_path / "history.json").keep_copies(status)
    figures = status["progress"]["shop"]
    assert figures["copied"]["public.event"]["rows"] == 801_250_000 and figures["phase"] == "streaming" and figures["applied"] == 1


# -- Prometheus

METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
UNITS = ("_seconds", "_bytes", "_rows", "_chunks", "_total")


@pytest.mark.parametrize("status", [given.following(), given.succeeded()], ids=["following", "succeeded"])
def test_prometheus_file_is_read_by_its_own_parser(status) -> None:
    """Every metric has a help, a type and a valid name; no sample is there twice; no timestamp."""
    text = prometheus.render(status, given.NOW)
    families = list(text_string_to_metric_families(text))
    seen = set()
    for family in families:
        assert METRIC.match(family.name) and family.name.startswith("pg_migration_")
        assert family.documentation.endswith(".") and family.type in ("gauge", "counter")
        for sample in family.samples:
            assert sample.timestamp is None and sample.labels["migration"] == "shop-2026"
            assert (family.type == "counter") == sample.name.endswith("_total")
            identity = (sample.name, tuple(sorted(sample.labels.items())))
            assert identity not in seen
            seen.add(identity)
    assert text.endswith("\n") and len(re.findall(r"^# TYPE ", text, re.M)) == len(families)


def value(text: str, name: str, **labels: str) -> float | None:
    """The sample ``name`` with at least these labels."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


def test_prometheus_values() -> None:
    """Base units; the state that holds is 1 and the others 0."""
    text = prometheus.render(given.following(), given.NOW)
    assert value(text, "pg_migration_latency_seconds", database="shop") == 0.8
    assert value(text, "pg_migration_retained_wal_bytes", database="billing") == 12 * given.MB
    assert value(text, "pg_migration_changes_applied_total", database="shop", kind="update") == 801_442
    assert value(text, "pg_migration_state", state="WaitingForUserAction") == 1
    assert value(text, "pg_migration_state", state="Succeeded") == 0
    assert value(text, "pg_migration_started_timestamp_seconds") == given.STARTED
    assert value(text, "pg_migration_cutover_pause_seconds") is None
    assert value(prometheus.render(given.succeeded(), given.NOW), "pg_migration_cutover_pause_seconds") == 1.02


def test_prometheus_tells_of_a_stall() -> None:
    """For how long nothing has moved, and 0 where it moves."""
    status = given.following()
    status["progress"]["shop"]["stalled"] = {"seconds": 42.5, "where": "target", "waits": []}
    text = prometheus.render(status, given.NOW)
    assert value(text, "pg_migration_stalled_seconds", database="shop") == 42.5
    assert value(text, "pg_migration_stalled_seconds", database="billing") == 0


def test_prometheus_leaves_out_what_is_not_known() -> None:
    """R91: no false zero."""
    status = given.following()
    status["progress"]["shop"]["latency_seconds"] = None
    text = prometheus.render(status, given.NOW)
    assert value(text, "pg_migration_latency_seconds", database="shop") is None
    assert value(text, "pg_migration_latency_seconds", database="billing") == 0.31
    assert "None" not in text


@property_of(st.text(min_size=1))
def test_prometheus_labels_come_back_as_they_were(name: str) -> None:
    """A database may be called anything but what holds a zero byte."""
    status = given.following()
    status["progress"] = {name: {"latency_seconds": 1.5}}
    text = prometheus.render(status, given.NOW)
    lines = [line for line in text.split("\n") if line.startswith("pg_migration_latency_seconds{")]
    assert len(lines) == 1
    if "\r" not in name and len(name.splitlines()) <= 1:
        assert value(text, "pg_migration_latency_seconds", database=name) == 1.5


# -- files


def test_files_are_replaced_at_once(tmp_path: Path) -> None:
    """Written beside and moved: no reader sees half of one, nothing is left beside, equal content is left alone."""
    path = tmp_path / "x.prom"
    assert write_text(path, "a\n", 0o644) is True
    before = path.stat()
    assert stat.S_IMODE(before.st_mode) == 0o644
    assert write_text(path, "a\n", 0o644) is False and path.stat().st_ino == before.st_ino
    assert write_text(path, "b\n", 0o644) is True and path.stat().st_ino != before.st_ino
    assert os.listdir(tmp_path) == ["x.prom"]
