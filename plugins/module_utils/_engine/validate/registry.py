# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""What a check is, and the list of all checks.

A check is a function that looks at one thing and yields what it found: ``ok``, ``warn`` or ``fail``. It is registered by
:func:`check` with its stable code. It never raises for a finding and never writes to a server.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..errors import MigrationError

if t.TYPE_CHECKING:
    from .context import Context

SUCCEEDED, WARNING, FAILED = "Succeeded", "Warning", "Failed"
RANK = {SUCCEEDED: 0, WARNING: 1, FAILED: 2}
SUPERUSER = "superuser on the source"
SERVER = "server administrator (provider console)"
OWNER = "owner of the object"
ADMINISTRATOR = "administrator of the target"
OPERATOR = "operator of the runtime host"
PLAYBOOK = "author of the playbook"
WHO = (SUPERUSER, SERVER, OWNER, ADMINISTRATOR, OPERATOR, PLAYBOOK)
"""Who may run a fix: one of these. A check names one, and a finding that differs another, see :func:`responsible`."""
BY_SIDE = {"source": SUPERUSER, "target": ADMINISTRATOR, "runtime": OPERATOR}
"""Who may run the fix of a check that names nobody."""

SHOWN = 20
"""How many names a message lists before it counts the rest."""


@dataclasses.dataclass(frozen=True)
class Issue:
    """What a check yields. ``fix`` is a statement or command; ``who`` (one of :data:`WHO`) may run it and ``restart`` says whether the
    server must be restarted for it: both as the check registered them unless given here. ``data`` is for machines."""

    severity: str
    message: str
    fix: str = ""
    object: str = ""
    azure_code: str = ""
    data: t.Any = None
    who: str = ""
    restart: bool | None = None


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report. ``scope`` is ``instance`` or ``database``, ``side`` ``source``, ``target`` or ``runtime``; ``seconds`` is
    the time that the whole check took. ``who`` (one of :data:`WHO`, empty where nothing is to be mended) may run the fix; ``restart``: a
    server must be restarted for it."""

    code: str
    azure_code: str
    scope: str
    side: str
    database: str
    object: str
    check: str
    severity: str
    message: str
    fix: str
    seconds: float
    data: t.Any = None
    who: str = ""
    restart: bool = False

    def to_dict(self) -> dict[str, t.Any]:
        """The finding as plain data."""
        return dataclasses.asdict(self)


CheckFunction = t.Callable[["Context"], t.Iterator[Issue]]


@dataclasses.dataclass(frozen=True)
class Check:
    """One registered check. ``needs`` names the sides that must be reachable; ``online``: left out in offline mode; ``who`` and
    ``restart`` hold for its findings unless one says otherwise; ``worst`` and ``remedy`` are for the documentation."""

    code: str
    azure_code: str
    name: str
    scope: str
    side: str
    needs: tuple[str, ...]
    online: bool
    worst: str
    remedy: str
    function: CheckFunction
    order: int = 0
    who: str = ""
    restart: bool = False

    @property
    def purpose(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


CHECKS: dict[str, Check] = {}


def check(
    code: str,
    name: str,
    *,
    azure: str = "",
    scope: str = "instance",
    side: str = "source",
    needs: tuple[str, ...] | None = None,
    online: bool = False,
    worst: str = FAILED,
    remedy: str = "",
    order: int = 0,
    who: str = "",
    restart: bool = False,
) -> t.Callable[[CheckFunction], CheckFunction]:
    """Register the decorated function as a check.

    :param needs: sides it reads, by default its own ``side``.
    :param order: checks run by this number, then by code.
    :param who: who may run its fixes, one of :data:`WHO`; by default by ``side``, see :data:`BY_SIDE`.
    :param restart: do its fixes need a restart of the server?
    """

    def register(function: CheckFunction) -> CheckFunction:
        if code in CHECKS:
            raise MigrationError(f"Two checks have the code {code}: {CHECKS[code].name} and {name}.")
        sides = needs if needs is not None else (() if side == "runtime" else (side,))
        CHECKS[code] = Check(code, azure, name, scope, side, sides, online, worst, remedy, function, order, who or BY_SIDE[side], restart)
        return function

    return register


def responsible(who: str, side: str, managed: bool) -> str:
    """``who`` for this kind of server: a provider's source has no superuser for its customer, and a server of one's own no console."""
    if managed and who == SUPERUSER:
        return SERVER
    if not managed and who == SERVER:
        return BY_SIDE[side]
    return who


def ok(message: str = "", *, data: t.Any = None, object: str = "") -> Issue:
    """All is well; ``message`` says what was seen."""
    return Issue(SUCCEEDED, message, object=object, data=data)


def warn(
    message: str, fix: str = "", *, object: str = "", azure_code: str = "", data: t.Any = None, who: str = "", restart: bool | None = None
) -> Issue:
    """The migration can go on, but somebody should know."""
    return Issue(WARNING, message, fix, object, azure_code, data, who, restart)


def fail(
    message: str, fix: str = "", *, object: str = "", azure_code: str = "", data: t.Any = None, who: str = "", restart: bool | None = None
) -> Issue:
    """The migration would fail or lose something."""
    return Issue(FAILED, message, fix, object, azure_code, data, who, restart)


def names(items: t.Iterable[str], limit: int = SHOWN) -> str:
    """``items`` for a message: the first ones by name, the rest counted."""
    every = list(items)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more


def statements(items: t.Iterable[str], limit: int = 5) -> str:
    """Statements for a fix: the first ones whole, the rest counted."""
    every = list(items)
    more = f" ... and {len(every) - limit} more like these" if len(every) > limit else ""
    return "; ".join(every[:limit]) + ";" + more
