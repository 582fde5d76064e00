# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The playbooks as a user plays them, with the control node as the runtime host."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[1]


class Playbooks:
    """An inventory for one migration and ``ansible-playbook`` on it.

    :param collections: where the collection is found; by default it is the checkout.
    """

    def __init__(self, folder: Path, description: dict[str, t.Any], collections: Path = REPO / ".work" / "link") -> None:
        self.folder = folder
        self.collections = collections
        self.home = folder / "home"
        self.inventory = folder / "inventory.yml"
        self.describe(description)

    def describe(self, description: dict[str, t.Any]) -> None:
        """Write the inventory."""
        variables = {
            "pg_migration": description,
            "pg_migration_home": str(self.home),
            "pg_migration_supervisor": "process",
            "pg_migration_python": sys.executable,
        }
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": variables}}), encoding="utf-8")

    def play(self, name: str, *arguments: str, timeout: float = 300.0) -> Run:
        """``ansible-playbook pgops.migration.NAME -i inventory``, for at most ``timeout`` seconds."""
        call = self._call(name, arguments)
        done = subprocess.run(**call, capture_output=True, text=True, check=False, timeout=timeout)
        return Run(done.returncode, done.stdout + done.stderr)

    def begin(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """The same, but nobody waits for it: a process group of its own, which is to be killed."""
        with (self.folder / "play.log").open("ab") as log:
            return subprocess.Popen(**self._call(name, arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def kill(self, play: subprocess.Popen[bytes]) -> None:
        """SIGKILL one that was begun, which has not ended, with the processes of its tasks, each of a session of its own: nobody would read
        what they found."""
        assert play.poll() is None, (self.folder / "play.log").read_text(encoding="utf-8")[-3000:]
        os.killpg(play.pid, signal.SIGKILL)
        play.wait()
        subprocess.run(["pkill", "-KILL", "-f", str(self.inventory)], check=False)

    def _call(self, name: str, arguments: t.Sequence[str]) -> dict[str, t.Any]:
        """Command, environment and folder, as :mod:`subprocess` takes them."""
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            f"pgops.migration.{name}",
            "-i",
            str(self.inventory),
            *arguments,
        ]
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }
        return {"args": command, "env": environment, "cwd": self.folder}


class Run:
    """What a playbook said."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text

    @property
    def changed(self) -> int:
        """Sum of ``changed=`` over all hosts of the recap."""
        return sum(int(number) for number in re.findall(r"changed=(\d+)", self.text.partition("PLAY RECAP")[2]))

    def fine(self) -> Run:
        """Itself, if it ended well."""
        assert self.status == 0, self.text[-6000:]
        return self
