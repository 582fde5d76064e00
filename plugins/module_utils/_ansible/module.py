# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The one adapter between the engine and ``AnsibleModule``: parameters in, results and errors out, both without secrets."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import traceback
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from .._engine.errors import MigrationError
from .._engine.postgres.loginfiles import resolve
from .._engine.spec import Endpoint, MigrationSpec, endpoint_from
from .argspec import ArgumentSpec
from .redact import Redactor
from .result import Result

if t.TYPE_CHECKING:
    from .._engine.service.manager import Manager

SPEC_KEYS = tuple(field.name for field in dataclasses.fields(MigrationSpec) if field.name != "back_of")
"""What a task says of a migration: all that the engine understands but the mark of a way back, which is made by the engine."""
LIBRARY_MISSING = "PGM8002"


class MigrationModule:
    """A module of this collection.

    :ivar params: what the task gave.
    :ivar check_mode: nothing may be changed.
    :ivar result: what is going to be returned.
    """

    def __init__(self, spec: ArgumentSpec) -> None:
        self._module = AnsibleModule(argument_spec=spec.options, required_if=spec.required_if, supports_check_mode=True)
        self.params: dict[str, t.Any] = self._module.params
        self.check_mode: bool = self._module.check_mode
        self.result = Result()
        sides = [self.params.get(side) or {} for side in ("source", "target", "login")]
        others = (self.params.get("passwords") or {}).values()
        self._redactor = Redactor([*(side.get("password") for side in sides), *map(str, others)])

    # -- parameters

    def spec(self) -> MigrationSpec:
        """The migration that the task describes.

        :raises SpecificationError: what is wrong with it.
        """
        given = {key: self.params[key] for key in SPEC_KEYS}
        spec = MigrationSpec.from_dict({**given, "source": self._login("source"), "target": self._login("target")})
        self.result.add(migration=spec.name)
        return spec

    def endpoint(self, side: str) -> Endpoint:
        """The server on ``side``, for modules that take no whole migration.

        :raises SpecificationError: what is wrong with it.
        """
        return endpoint_from(side, self._login(side))

    def _login(self, side: str) -> dict[str, t.Any]:
        """What the task says of a server, with what the files that it names say; a password from there is a secret as well."""
        values = resolve(side, self.params[side])
        self._redactor.add(values.get("password"))
        return values

    def manager(self) -> Manager:
        """What looks after the migrations of this host; imported late, so that reading modules stay small."""
        from .._engine.service.manager import Manager

        return Manager(Path(self.params["home"]), supervisor=self.params["supervisor"], python=sys.executable)

    # -- ends

    @contextlib.contextmanager
    def reporting(self) -> t.Iterator[Result]:
        """Run the module's body: an error of the engine becomes the one ``fail_json`` there is, anything else is a bug of ours."""
        try:
            yield self.result
        except MigrationError as exc:
            if self.check_mode and exc.code == LIBRARY_MISSING:
                self._predict_unprovisioned(exc)
            else:
                self.fail(exc)
        except Exception as exc:
            trace = traceback.format_exc()
            bug = MigrationError(f"Unforeseen: {type(exc).__name__}: {exc}", hint="Please report this with the traceback.")
            self.fail(bug, traceback=trace.splitlines())

    def _predict_unprovisioned(self, exc: MigrationError) -> None:
        """In a check run nothing has provisioned the host yet: say what is known instead of failing."""
        self.warn(f"{exc.message} The runtime host is not provisioned yet; this check shows only what the specification says.")
        self.result.changed = True
        self.result.facts.setdefault("summary", "not provisioned yet")

    def warn(self, text: str) -> None:
        """Show a warning."""
        self._module.warn(self._redactor.text(text))

    def exit(self) -> t.NoReturn:
        """Return the result."""
        self._module.exit_json(**self._clean())
        raise SystemExit  # exit_json does not come back

    def fail(self, exc: MigrationError, **facts: t.Any) -> t.NoReturn:
        """Fail with what ``exc`` tells and what is known so far."""
        told: dict[str, t.Any] = {
            "error_code": exc.code,
            "hint": exc.hint,
            "server": exc.server,
            "sqlstate": exc.sqlstate,
            "details": exc.details,
        }
        known = {**self._clean(), **self._redactor.clean({k: v for k, v in {**told, **facts}.items() if v not in ("", None, {})})}
        self._module.fail_json(msg=self._redactor.text(exc.message), **known)
        raise SystemExit  # fail_json does not come back

    def _clean(self) -> dict[str, t.Any]:
        cleaned = self._redactor.clean(self.result.to_dict(diff=self._module._diff))
        return t.cast("dict[str, t.Any]", cleaned)
