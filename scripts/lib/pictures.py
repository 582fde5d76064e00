# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The pictures of docs/: the page of a migration, made of the samples that the tests use, in headless Chromium."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / "tests"), str(REPO / ".work" / "link")]

import browser  # noqa: E402
import monitor_samples as given  # noqa: E402
from ansible_collections.pgops.migration.plugins.module_utils._engine.monitor import page  # noqa: E402

PICTURES = (
    ("monitor-1280", given.following, 1280, 900, False),
    ("monitor-report-1280", given.succeeded, 1280, 980, False),
    ("monitor-400", given.following, 400, 1230, False),
    ("monitor-dark-400", given.succeeded, 400, 1230, True),
)
"""Name, migration, width, height, dark."""


def main() -> int:
    """Write the files; 1 where there is no browser."""
    if not browser.available():
        sys.stderr.write("chromium and chromium-driver are not installed\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, browser.Browser(Path(folder) / "profile") as chromium:
        for name, status, width, height, dark in PICTURES:
            one = status()
            path = Path(folder) / f"{name}.html"
            samples = given.samples(ended=one["state"] == "Succeeded")
            path.write_text(page.render(one, given.others(one), samples, given.NOW, live=False), encoding="utf-8")
            chromium.open(path, width=width, dark=dark)
            (REPO / "docs" / "images" / f"{name}.png").write_bytes(chromium.picture(height=height))
    return 0


if __name__ == "__main__":
    sys.exit(main())
