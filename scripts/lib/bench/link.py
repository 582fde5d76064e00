# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The base copy over a slow link: the runtime host is 50 ms (there and back) and 100 Mbit/s away from both servers.

How much of the link is used, from the first row to the last: rows come from the source and go to the target at once, so either direction
can be full. Besides it, what one plain TCP connection gets out of the same link. Four relays, because between two chunks a relay waits for
some round trips, which the others fill.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))
import conftest  # noqa: F401  # makes the checkout importable  # pylint: disable=unused-import
import databases
import measure
import pair
import servers as lab
from ansible_collections.pgops.migration.plugins.module_utils._engine.service.holder import HeldSnapshot
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.basecopy import BaseCopy, CopyJob
from ansible_collections.pgops.migration.plugins.module_utils._engine.snapshot.target import prepare_target
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
from slowlink import SlowLink

DATABASE = "shop"
RATE, DELAY = 100e6, 0.025
PLAIN_BYTES = 60_000_000


def run(results: measure.Results, source: lab.Server, target: lab.Server, folder: Path, scale: float, runs: int) -> None:
    """``runs`` times some 180 MB of rows at scale 1.

    :raises RuntimeError: if a copy fails.
    """
    target.create_role(pair.OWNER)
    target.execute(f"GRANT {pair.OWNER} TO admin")
    source.create_database(DATABASE, pair.OWNER)
    with source.connect(DATABASE, pair.OWNER, pair.PASSWORDS[source.port]) as conn:
        conn.execute(t.cast(t.Any, databases.script("narrow", 0.3 * scale)))
    source.execute("VACUUM ANALYZE", DATABASE)
    for number in range(runs):
        with SlowLink(RATE, DELAY) as link:
            results.add("link", "100 Mbit/s, 50 ms", "one TCP connection", _measured(link, _plain(link)))
            ends = {}
            for side, server in (("source", source), ("target", target)):
                ends[side] = {"host": link.near, "port": link.lead(server.host, server.port), "password": pair.PASSWORDS[server.port]}
            described = pair.describe(source, target, "bench", [DATABASE], copy={"chunk_bytes": 32 << 20, "jobs": 4}, **ends)
            results.add("link", "100 Mbit/s, 50 ms", "project", _measured(link, _copying(link, described, folder / str(number))))
        target.drop_database(DATABASE)
    source.drop_database(DATABASE)


def _measured(link: SlowLink, marks: t.Iterator[None]) -> dict[str, float]:
    """What the link carried between the two marks."""
    next(marks)
    began, before = time.monotonic(), link.carried()
    next(marks)
    seconds, after = time.monotonic() - began, link.carried()
    for dummy in marks:
        pass
    most = max(there - here for here, there in zip(before, after, strict=True))
    return {"seconds": seconds, "link_share": most * 8 / link.rate / seconds}


def _plain(link: SlowLink) -> t.Iterator[None]:
    with socket.create_server((link.near, 0)) as listener:
        code = f"import socket; s = socket.create_connection({(link.near, listener.getsockname()[1])!r})\nwhile s.recv(1 << 18): pass"
        reader = subprocess.Popen(["ip", "netns", "exec", link.name, sys.executable, "-c", code])
        with listener.accept()[0] as conn:
            yield
            conn.sendall(bytes(PLAIN_BYTES))
        reader.wait()
        yield


def _copying(link: SlowLink, described: dict[str, t.Any], folder: Path) -> t.Iterator[None]:
    words = ["ip", "netns", "exec", link.name, sys.executable, __file__]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipe")
        process.stdin.write(json.dumps({"spec": described, "folder": str(folder)}) + "\n")
        process.stdin.close()
        for line in process.stdout:
            if line.strip() in ("rows", "indexes"):
                yield
    if process.returncode:
        raise RuntimeError(f"the copy ended with {process.returncode}")


def main() -> int:
    """The copy itself, inside the namespace; it says when the first row moves and when the last is there."""
    order = json.loads(sys.stdin.readline())
    spec = MigrationSpec.from_dict(order["spec"])
    said = set()

    def report(figures: dict[str, t.Any]) -> None:
        for word, reached in (("rows", figures.get("bytes_moved")), ("indexes", figures.get("step") == "indexes")):
            if reached and word not in said:
                said.add(word)
                sys.stdout.write(word + "\n")
                sys.stdout.flush()

    snapshot = HeldSnapshot(spec, DATABASE)
    prepare_target(spec, DATABASE)
    job = CopyJob(spec, DATABASE, Path(order["folder"]), snapshot.snapshot, snapshot.consistent_point)
    BaseCopy(job, report, snapshot.close, threading.Event()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
