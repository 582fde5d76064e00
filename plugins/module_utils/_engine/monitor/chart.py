# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Curves of a migration's run as SVG: one small area chart a figure, with its peak, its last value, and the value under the pointer."""

from __future__ import annotations

import datetime
import typing as t

from .history import Sample
from .markup import Html, el, svg

WIDTH, HEIGHT = 600, 100
"""Units of the drawing; it is stretched to its place, lines keep their width."""

POINTS = 120
"""Points of a curve; more cannot be told apart at its size."""

GAP = 4
"""A pause of so many times the usual distance is a gap in the curve: the service did not run."""

Point = t.Tuple[float, "float | None"]
Show = t.Callable[[float], str]


def rates(samples: t.Sequence[Sample], value: t.Callable[[Sample], float]) -> list[Point]:
    """Increase a second of a counter, at the end of each span; None where the counter began anew."""
    points: list[Point] = []
    for one, other in zip(samples, samples[1:], strict=False):
        seconds, more = other.moment - one.moment, value(other) - value(one)
        if seconds > 0:
            points.append((other.moment, more / seconds if more >= 0 else None))
    return points


def thin(samples: t.Sequence[Sample], most: int = POINTS) -> list[Sample]:
    """At most about ``most`` samples of the whole run, neighbours merged."""
    step = max(1, -(-len(samples) // most))
    thinned = []
    for start in range(0, len(samples), step):
        sample = samples[start]
        for later in samples[start + 1 : start + step]:
            sample = sample.merged(later)
        thinned.append(sample)
    return thinned


def chart(title: str, points: t.Sequence[Point], show: Show, *, color: str, marks: t.Sequence[tuple[float, str]] = ()) -> Html:
    """A figure with the curve of ``points`` (moment in seconds, value); None interrupts it.

    :param show: the text of a value.
    :param color: class that gives the colour.
    :param marks: moments at which something began, with its name.
    """
    known = [(moment, value) for moment, value in points if value is not None]
    if len(known) < 2:
        empty = el("p", "no data yet", cls="none")
        return el("figure", el("figcaption", el("b", title)), el("div", empty, cls="plot"), cls=f"chart {color}")
    first, last = points[0][0], points[-1][0]
    peak = max(value for dummy, value in known)
    scale = _Scale(first, max(last - first, 0.001), peak or 1.0)
    drawn = [el("line", x1="0", x2=str(WIDTH), y1=str(y), y2=str(y), cls="rule") for y in (0, HEIGHT // 2, HEIGHT)]
    drawn += [el("path", d=scale.area(run), cls="area") for run in _runs(points) if len(run) > 1]
    drawn += [el("path", d=scale.line(run), cls="curve") for run in _runs(points) if len(run) > 1]
    drawn += [_mark(scale, moment, name) for moment, name in marks if first < moment < last]
    drawn += _hovers(scale, points, show)
    picture = el("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none", role="img", aria_label=title)
    heads = el("figcaption", el("b", title), el("span", show(known[-1][1]), cls="now"))
    feet = el("div", el("span", _clock(first)), el("span", f"peak {show(peak)}"), el("span", _clock(last)), cls="feet")
    return el("figure", heads, el("div", picture, cls="plot"), feet, cls=f"chart {color}")


class _Scale:
    """From moments and values to units of the drawing."""

    def __init__(self, first: float, span: float, peak: float) -> None:
        self._first, self._span, self._peak = first, span, peak

    def x(self, moment: float) -> float:
        return round((moment - self._first) / self._span * WIDTH, 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - value / self._peak * (HEIGHT - 4), 1)

    def line(self, run: t.Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.x(moment)} {self.y(value)}" for moment, value in run)

    def area(self, run: t.Sequence[tuple[float, float]]) -> str:
        return f"{self.line(run)}L{self.x(run[-1][0])} {HEIGHT}L{self.x(run[0][0])} {HEIGHT}Z"


def _runs(points: t.Sequence[Point]) -> list[list[tuple[float, float]]]:
    """The parts of the curve without a gap."""
    distances = sorted(other[0] - one[0] for one, other in zip(points, points[1:], strict=False))
    usual = distances[len(distances) // 2] if distances else 0.0
    runs: list[list[tuple[float, float]]] = [[]]
    for moment, value in points:
        if value is None or runs[-1] and moment - runs[-1][-1][0] > GAP * max(usual, 1.0):
            runs.append([])
        if value is not None:
            runs[-1].append((moment, value))
    return runs


def _mark(scale: _Scale, moment: float, name: str) -> Html:
    x = str(scale.x(moment))
    return svg("line", el("title", name), x1=x, x2=x, y1="0", y2=str(HEIGHT), cls="mark")


def _hovers(scale: _Scale, points: t.Sequence[Point], show: Show) -> list[Html]:
    """Invisible columns that tell moment and value under the pointer."""
    edges = [scale.x(moment) for moment, dummy in points]
    found = []
    for place, (moment, value) in enumerate(points):
        left = (edges[place - 1] + edges[place]) / 2 if place else edges[0]
        right = (edges[place] + edges[place + 1]) / 2 if place + 1 < len(edges) else edges[-1]
        told = f"{_clock(moment, seconds=True)}  {show(value) if value is not None else 'not known'}"
        box = {"x": f"{left:.1f}", "y": "0", "width": f"{max(right - left, 0.1):.1f}", "height": str(HEIGHT)}
        found.append(svg("rect", el("title", told), cls="hover", **box))
    return found


def _clock(moment: float, *, seconds: bool = False) -> str:
    when = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return when.strftime("%H:%M:%S" if seconds else "%m-%d %H:%M")
