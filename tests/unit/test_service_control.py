# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The control socket: an answer may take its time, and what nobody waits for any more is not begun."""

from __future__ import annotations

import asyncio
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.pgops.migration.plugins.module_utils._engine.errors import ServiceError
from ansible_collections.pgops.migration.plugins.module_utils._engine.service import control


class Service:
    """A service whose pre-checks last until ``go_on`` is set; ``begun`` are the cutovers that followed."""

    def __init__(self, path: Path) -> None:
        self.path, self.begun, self.given_up = path, 0, threading.Event()
        self.go_on, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _handle(self, command: dict[str, t.Any]) -> dict[str, t.Any]:
        try:
            while command["command"] == "cutover" and not self.go_on.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        self.begun += command["command"] == "cutover"
        return {"said": command["command"]}

    async def _run(self) -> None:
        server = await control.serve_control(self.path, self._handle)
        self._end = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._end.wait()
        server.close()

    def __enter__(self) -> Service:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *dummy: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)


@pytest.fixture
def service(tmp_path: Path) -> t.Iterator[Service]:
    """One that listens."""
    with Service(tmp_path / "control.sock") as one:
        yield one


def test_answers(service: Service) -> None:
    """At once, or when it is done."""
    assert control.ask_service(service.path, "ping") == {"said": "ping"}
    threading.Timer(0.3, service.go_on.set).start()
    assert control.ask_service(service.path, "cutover") == {"said": "cutover"}
    assert service.begun == 1


def test_nobody_waits_any_more(service: Service) -> None:
    """The cutover that was asked for is not begun behind the back of who asked, and it is said so; the next one is."""
    with pytest.raises(ServiceError, match="nothing was begun") as caught:
        control.ask_service(service.path, "cutover", timeout=0.2)
    assert caught.value.code == "PGM8004" and caught.value.hint
    assert service.given_up.wait(10)
    service.go_on.set()
    assert control.ask_service(service.path, "ping") == {"said": "ping"}
    assert service.begun == 0
    assert control.ask_service(service.path, "cutover") == {"said": "cutover"} and service.begun == 1


def test_pre_checks_have_a_limit_of_their_own() -> None:
    """Longer than a moment, shorter than a task."""
    assert all(60 < control.ANSWER_SECONDS[command] <= 600 for command in ("precheck", "cutover"))
