# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""Running the user's own commands in a cutover, so that none outlives what it was run for.

A command that stops the writers must not go on when the process that ran it was killed: it would have the last word after its counterpart,
and the source would stay closed. So while it runs a file (``mark``) holds its process id, locked by whoever is part of it, and whoever
lifts the fence ends it first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess  # nosec: the user's own command
import time
import typing as t
from pathlib import Path

from ..errors import CutoverAborted

POLITE_SECONDS = 1.0
"""How long a command that is to end has for its own tidying up."""

END_SECONDS = 10.0
LOOK_SECONDS = 0.02
STARTING = "starting"


def run_command(words: t.Sequence[str], seconds: float, mark: Path | None = None) -> None:
    """Run the user's command; its output is told where it fails.

    :param mark: the file by which :func:`end_command` finds it.
    :raises CutoverAborted: PGM5109 if it fails or takes too long.
    """
    if not words:
        return
    try:
        status, errors = _run(list(words), seconds, mark)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CutoverAborted(f"The command {words[0]} could not be run to its end: {exc}.", code="PGM5109") from exc
    if status:
        said = errors.decode(errors="replace").strip()[-200:]
        raise CutoverAborted(f"The command {words[0]} ended with status {status}: {said}", code="PGM5109")


def _run(words: list[str], seconds: float, mark: Path | None) -> tuple[int, bytes]:
    with _locked(mark) as file:
        fds = [file.fileno()] if file else []
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True, pass_fds=fds) as process:
            _write(file, str(process.pid))
            try:
                dummy, errors = process.communicate(timeout=seconds)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        _write(file, "")
        return process.returncode, errors


@contextlib.contextmanager
def _locked(mark: Path | None) -> t.Iterator[t.IO[str] | None]:
    """A new file: what an earlier command has left running in the background may hold the old one."""
    if mark is None:
        yield None
        return
    mark.unlink(missing_ok=True)
    with mark.open("x", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _write(file, STARTING)
        yield file


def _write(file: t.IO[str] | None, text: str) -> None:
    if file:
        file.seek(0)
        file.truncate()
        file.write(text)
        file.flush()


def end_command(mark: Path) -> None:
    """End the command that ``mark`` tells of if it is still running, and wait until it is gone.

    What a command that has ended has left in the background is its own affair.
    """
    began = time.monotonic()
    try:
        file = mark.open("r", encoding="utf-8")
    except FileNotFoundError:
        return
    with file:
        while not _free(file) and time.monotonic() < began + END_SECONDS:
            text = mark.read_text(encoding="utf-8")
            if not text:
                return
            if text != STARTING:
                polite = time.monotonic() < began + POLITE_SECONDS
                with contextlib.suppress(OSError):
                    os.killpg(int(text), signal.SIGTERM if polite else signal.SIGKILL)
            time.sleep(LOOK_SECONDS)


def _free(file: t.IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
