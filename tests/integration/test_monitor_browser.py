# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The page in a real browser: wide and narrow, light and dark; readable, without an error on the console, without a request."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import browser
import monitor_samples as given
import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor import page

pytestmark = pytest.mark.skipif(not browser.available(), reason="needs chromium and chromium-driver")

STATUSES = {"following": given.following, "succeeded": given.succeeded}
OVERFLOWING = """Array.from(document.querySelectorAll('body *')).filter(function (e) {
  var box = e.getBoundingClientRect();
  return box.width > 0 && box.right > window.innerWidth + 1 && !e.closest('svg')
}).map(function (e) { return e.tagName + ' ' + e.textContent.slice(0, 40) })"""
FAINT = """(function () {
  function channel(v) { v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4) }
  function light(c) { return 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]) }
  var canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  function over(layers) {
    canvas.clearRect(0, 0, 1, 1);
    layers.forEach(function (color) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1) });
    return canvas.getImageData(0, 0, 1, 1).data;
  }
  return Array.from(document.querySelectorAll('main *')).filter(function (e) {
    var own = Array.from(e.childNodes).some(function (n) { return n.nodeType === 3 && n.textContent.trim() });
    if (!own || e.closest('svg') || !e.getClientRects().length) return false;
    var layers = [];
    for (var up = e; up; up = up.parentElement) layers.unshift(getComputedStyle(up).backgroundColor);
    var below = light(over(layers)), above = light(over(layers.concat(getComputedStyle(e).color)));
    return (Math.max(below, above) + 0.05) / (Math.min(below, above) + 0.05) < 4.5;
  }).map(function (e) { return e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40) });
})()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[browser.Browser]:
    """A browser for this module."""
    with browser.Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def file(tmp_path: Path) -> t.Callable[..., Path]:
    """``file(name, **options)``: the page of a sample as a file."""

    def write(name: str, written: float = given.NOW, **options: t.Any) -> Path:
        status = STATUSES[name]()
        path = tmp_path / f"{name}.html"
        samples = given.samples(ended=name == "succeeded")
        path.write_text(page.render(status, given.others(status), samples, written, **options), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", STATUSES)
def test_readable(name, width, dark, chromium, file) -> None:
    """No horizontal scrolling, nothing beyond the edge, text of 11 pixels at least, a contrast of 4.5 (WCAG 2.1 AA), a silent console."""
    chromium.open(file(name, live=False), width=width, dark=dark)
    assert chromium.run("document.documentElement.scrollWidth") <= width
    assert chromium.run(OVERFLOWING) == []
    assert chromium.run(FAINT) == []
    sizes = chromium.run("Array.from(document.querySelectorAll('main *')).map(e => parseFloat(getComputedStyle(e).fontSize))")
    assert min(sizes) >= 11
    assert chromium.run("document.querySelectorAll('svg .curve').length") >= 4
    assert chromium.run("performance.getEntriesByType('resource').length") == 0
    assert chromium.console() == []


def test_what_was_unfolded_stays_so_over_a_reload(chromium, file) -> None:
    """The page reloads itself every few seconds; the reader's place in it is kept."""
    chromium.open(file("following", written=time.time()), width=1280)
    assert chromium.run("document.getElementById('stale').hidden") is True
    opened = "document.querySelector('details[id]')"
    assert chromium.run(f"{opened}.open") is False
    chromium.run(f"{opened}.open = true")
    limit = time.monotonic() + 10
    while not chromium.run("sessionStorage.length") and time.monotonic() < limit:
        time.sleep(0.02)
    chromium.reload()
    assert chromium.run(f"{opened}.open") is True
    assert chromium.console() == []


def test_a_page_that_nobody_writes_any_more_says_so(chromium, file) -> None:
    """A service that was killed leaves an active migration; its page must not look alive."""
    chromium.open(file("following", written=time.time() - 600), width=400)
    assert chromium.run("document.getElementById('stale').hidden") is False
    assert "600 seconds" in chromium.run("document.getElementById('stale').textContent").replace("601", "600").replace("602", "600")


def test_injected_markup_does_not_run(chromium, tmp_path: Path) -> None:
    """Even if escaping were broken the page's policy would stop a script; here both are seen to work."""
    status = given.following()
    status["summary"] = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    text = page.render(status, [status], [], time.time())
    path = tmp_path / "escaped.html"
    path.write_text(text, encoding="utf-8")
    chromium.open(path, width=1280)
    assert chromium.run("document.querySelectorAll('img').length") == 0 and chromium.console() == []
    path.write_text(text.replace("</main>", "<script>document.title = 'owned'</script></main>"), encoding="utf-8")
    chromium.open(path, width=1280)
    assert chromium.run("document.title") != "owned"
    assert any("Content Security Policy" in line for line in chromium.console())
