# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Running one module in this process, as a task would, on real servers."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import typing as t
from pathlib import Path

from ansible.module_utils.testing import patch_module_args

_watched: list[tuple[str, list[str]]] = []
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown")


def _audit(event: str, arguments: tuple[t.Any, ...]) -> None:
    if not _watched or event != "open" and event not in _CHANGES:
        return
    if event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    folder, seen = _watched[-1]
    paths = [str(path) for path in arguments[:2] if isinstance(path, (str, os.PathLike))]
    seen += [f"{event} {path}" for path in paths if path.startswith(folder) and not path.endswith("/catalogue.db")]


sys.addaudithook(_audit)


@contextlib.contextmanager
def changes_in(folder: Path) -> t.Iterator[list[str]]:
    """What this process, and no service that is at work there, writes, makes and removes in ``folder`` meanwhile. What it does to the
    catalogue is SQLite's and not seen."""
    seen: list[str] = []
    _watched.append((str(folder), seen))
    try:
        yield seen
    finally:
        _watched.pop()


class Outcome(t.NamedTuple):
    """What a module said: its result and the text of it."""

    result: dict[str, t.Any]
    text: str

    @property
    def changed(self) -> bool:
        """Did it say so?"""
        return bool(self.result.get("changed"))

    def fine(self) -> Outcome:
        """Itself, if the task did not fail."""
        assert not self.result.get("failed"), self.text[-3000:]
        return self


def run_module(called: str, /, *, check: bool = False, **arguments: t.Any) -> Outcome:
    """Run ``pgops.migration.NAME`` with ``--diff``."""
    module = importlib.import_module(f"ansible_collections.pgops.migration.plugins.modules.{called}")
    said = io.StringIO()
    given = {"_ansible_check_mode": check, "_ansible_diff": True, **arguments}
    with patch_module_args(given), contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        module.main()
    return Outcome(json.loads(said.getvalue().strip().splitlines()[-1]), said.getvalue())


def as_checked(name: str, /, **arguments: t.Any) -> Outcome:
    """``--check --diff``, then the real run: what was foretold is what is said and done, and nothing is left to do."""
    foretold = run_module(name, check=True, **arguments).fine()
    done = run_module(name, **arguments).fine()
    assert (foretold.changed, foretold.result.get("diff")) == (done.changed, done.result.get("diff"))
    again = run_module(name, check=True, **arguments).fine()
    assert not again.changed, again.result.get("diff")
    return done
