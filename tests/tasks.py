# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Running one module in this process, as a task would, on real servers."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import typing as t

from ansible.module_utils.testing import patch_module_args


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
