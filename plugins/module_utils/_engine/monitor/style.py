# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""How the page looks, and the few lines of script that keep what the reader has unfolded over a reload."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark;
  --bg: #f5f6f8; --card: #fff; --ink: #1b2230; --mute: #5d6778; --line: #e3e6eb; --soft: #eef0f4;
  --blue: #2563c9; --green: #146c39; --amber: #8a5108; --red: #b3202c; --violet: #6d49c4; }
@media (prefers-color-scheme: dark) { :root {
  --bg: #0f1318; --card: #171c23; --ink: #e4e8ee; --mute: #97a1b0; --line: #29313b; --soft: #212832;
  --blue: #6ea6ff; --green: #52c58c; --amber: #e3a64a; --red: #ff7b7b; --violet: #ab91f5; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--bg); color: var(--ink); font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100% }
main { max-width: 1240px; margin: 0 auto; padding: 20px 20px 48px }
h1 { font-size: 24px; line-height: 1.2; margin: 0; letter-spacing: -.01em; overflow-wrap: anywhere }
h2 { font-size: 12px; text-transform: uppercase; letter-spacing: .07em; color: var(--mute); margin: 30px 0 10px; font-weight: 650 }
h3 { font-size: 13.5px; margin: 0 0 8px; font-weight: 650 }
p { margin: 0 }
code { font: 12px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; white-space: pre-wrap }
.mute { color: var(--mute) } .small { font-size: 12px } .num { text-align: right; white-space: nowrap } .nowrap { white-space: nowrap }
.green { --c: var(--green) } .amber { --c: var(--amber) } .red { --c: var(--red) } .blue { --c: var(--blue) }
.violet { --c: var(--violet) } .grey { --c: var(--mute) }
.word { color: var(--c); font-weight: 600 }
.pill { display: inline-block; padding: 2px 10px; border-radius: 99px; font-size: 12.5px; font-weight: 600; color: var(--c);
  background: color-mix(in srgb, var(--c) 10%, transparent); white-space: nowrap; letter-spacing: 0; vertical-align: 3px }
header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline; justify-content: space-between }
header .pill { margin-left: 8px }
.lead { margin: 8px 0 0; font-size: 15px } .lead b { font-weight: 600 }
.steps { display: flex; list-style: none; margin: 18px 0 0; padding: 0; gap: 6px }
.steps li { flex: 1; padding-top: 7px; border-top: 3px solid var(--line); color: var(--mute); font-size: 12px; min-width: 0 }
.steps .done { border-color: var(--green) } .steps .now { border-color: var(--c); color: var(--ink); font-weight: 600 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px; background: var(--line);
  border: 1px solid var(--line); border-radius: 10px; overflow: hidden; margin-top: 18px }
.tiles div { background: var(--card); padding: 11px 16px 12px; min-width: 0 }
.tiles span { display: block; font-size: 12px; color: var(--mute) }
.tiles b { display: block; font-size: 20px; font-weight: 600; letter-spacing: -.01em; margin-top: 1px; white-space: nowrap }
.tiles small { color: var(--mute); font-size: 12px; display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.route { display: grid; grid-template-columns: 1fr 24px 1fr; align-items: center; margin-top: 12px; gap: 8px }
.route i { color: var(--mute); text-align: center; font-style: normal; font-size: 18px }
.route b { overflow-wrap: anywhere; font-weight: 600 }
.alert { border-left: 4px solid var(--c); margin-top: 16px } .alert p + p { margin-top: 6px } .alert b { color: var(--c) }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 12px; align-items: start }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 250px), 1fr)); gap: 12px }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 11px 14px 9px; margin: 0; min-width: 0 }
.chart figcaption { display: flex; justify-content: space-between; gap: 8px; font-size: 12px; color: var(--mute) }
.chart figcaption b { font-weight: 600 } .chart .now { color: var(--ink); font-weight: 600; white-space: nowrap }
.plot { margin-top: 8px; min-height: 84px } .plot svg { display: block; width: 100%; height: 84px; overflow: hidden }
.feet { display: flex; justify-content: space-between; font-size: 11px; color: var(--mute); margin-top: 4px }
.none { color: var(--mute); font-size: 12px; padding-top: 30px; text-align: center }
.rule { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke }
.curve { fill: none; stroke: var(--c); stroke-width: 1.6; stroke-linejoin: round; vector-effect: non-scaling-stroke }
.area { fill: var(--c); opacity: .12 }
.mark { stroke: var(--mute); stroke-width: 1; stroke-dasharray: 3 3; vector-effect: non-scaling-stroke }
.hover { fill: transparent } .hover:hover { fill: var(--c); opacity: .18 }
table { border-collapse: collapse; width: 100%; font-size: 13px }
th { text-align: left; font-weight: 600; font-size: 11.5px; color: var(--mute); padding: 0 10px 6px 0; white-space: nowrap;
  vertical-align: bottom }
th.num { text-align: right }
td { padding: 5px 10px 5px 0; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; min-width: 0 }
th.num + :not(.num), td.num + :not(.num) { padding-left: 10px } th:last-child, td:last-child { padding-right: 0 }
td.name { font-weight: 600; min-width: 9em }
tr.here td { background: color-mix(in srgb, var(--blue) 6%, transparent) }
.bar { position: relative; display: block; height: 6px; border-radius: 3px; background: var(--soft); margin: 6px 0 3px;
  overflow: hidden; min-width: 60px }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--c); border-radius: 3px }
.done { display: flex; align-items: center; gap: 8px; min-width: 170px } .done .bar { flex: 1; max-width: 110px; margin: 0 }
.phases td:nth-child(2) { width: 34% } .phases .bar { margin-bottom: 0 }
details { margin-top: 8px } details > :nth-child(2) { margin-top: 8px }
summary { cursor: pointer; color: var(--blue); font-size: 13px; width: fit-content }
.log td:first-child { white-space: nowrap; color: var(--mute); font-size: 12px }
.fix { display: block; margin-top: 3px; color: var(--mute) }
footer { margin-top: 30px; font-size: 12px; color: var(--mute) }
.stale { margin-top: 16px } [hidden] { display: none }
a { color: var(--blue); text-decoration: none } a:hover { text-decoration: underline }
@media (max-width: 700px) {
  main { padding: 14px 12px 36px } h1 { font-size: 20px } header .pill { margin-left: 6px }
  .tiles { grid-template-columns: 1fr 1fr } .tiles b { font-size: 17px } .tiles div { padding: 9px 12px }
  .route { grid-template-columns: 1fr; gap: 4px } .route i { display: none }
  .steps li span { display: none } .steps li.now span { display: inline } .steps li.now { flex: 4 }
  .card { padding: 12px } .card + .card { margin-top: 0 }
  table.stack, .stack tbody, .stack tr { display: block } .stack thead { display: none }
  .stack tr { border-top: 1px solid var(--line); padding: 8px 0 } .stack tbody tr:first-child { border-top: 0; padding-top: 0 }
  .stack td { display: flex; justify-content: space-between; gap: 14px; border: 0; padding: 2px 0; text-align: right;
    width: auto !important }
  .stack td::before { content: attr(data-label); color: var(--mute); font-size: 12px; flex: none; text-align: left }
  .stack td.name { font-size: 14px; text-align: left; justify-content: flex-start } .stack td.name::before { display: none }
  .stack td.text { display: block; text-align: left } .stack td.text::before { display: block }
  .stack.dense tr { display: flex; flex-wrap: wrap; gap: 1px 14px; align-items: baseline }
  .stack.dense td { justify-content: flex-start; gap: 6px } .stack.dense td.name { flex: 1 0 100% } .dense .done .bar { width: 90px }
  .stack.dense td:nth-child(n+3) { font-size: 12px }
  .tiles div:last-child:nth-child(odd) { grid-column: 1 / -1 }
  .stack td.num + td { padding-left: 0 } .stack td:empty { display: none } tr.here td { background: none }
  .log td:first-child { font-size: 11px }
}
@media print { body { background: #fff } .hover { display: none } }
"""

SCRIPT = """
(function () {
  var all = document.querySelectorAll('details[id]'), box = document.getElementById('stale'), open = {};
  try { open = JSON.parse(sessionStorage.getItem('open:' + document.title) || '{}') } catch (e) { open = {} }
  all.forEach(function (d) {
    if (open[d.id]) d.open = true;
    d.addEventListener('toggle', function () {
      open[d.id] = d.open;
      try { sessionStorage.setItem('open:' + document.title, JSON.stringify(open)) } catch (e) { return }
    });
  });
  if (box) {
    var age = Math.round(Date.now() / 1000 - Number(box.getAttribute('data-written')));
    if (age > 60) { box.hidden = false; box.querySelector('b').textContent = age + ' seconds' }
  }
})();
"""
"""Works without: nothing but unfolded parts and the warning of a stale page depends on it."""
