# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A child's end of its tie to the service: JSON lines in (commands) and out (reports).

The service's death closes the child's standard input; the child then stops. So nothing that writes to a database outlives the
process that answers for it, whatever killed that.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import typing as t


class Link:
    """Standard input and output of a child process.

    :ivar stop: set when the service asks for the end or is gone.
    :ivar commands: every other command, in order.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.commands: queue.Queue[dict[str, t.Any]] = queue.Queue()
        self._lock = threading.Lock()
        self._on: dict[str, t.Callable[[dict[str, t.Any]], None]] = {}
        self._reader = threading.Thread(target=self._read, name="link", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._reader.start()

    def on(self, command: str, handler: t.Callable[[dict[str, t.Any]], None]) -> None:
        """Call ``handler`` at once, in the listening thread, when ``command`` comes; such a command is not queued."""
        self._on[command] = handler

    def send(self, **report: t.Any) -> None:
        """Tell the service something; one line of JSON."""
        line = json.dumps(report, default=str)
        with self._lock:
            try:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            except (BrokenPipeError, ValueError):
                self.stop.set()

    def _read(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            if command.get("command") == "stop":
                break
            handler = self._on.get(command.get("command", ""))
            if handler:
                handler(command)
            else:
                self.commands.put(command)
        self.stop.set()
        self.commands.put({"command": "stop"})
