# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""README.md as a newcomer follows it, from a clone to the cutover: a home without a setting, two servers reached by SSH, nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import servers
from byssh import content, restart, traces
from lab import rooms
from lab.able import Unable
from lab.databases import psql
from lab.place import REPO, Place
from pages import blocks

NAMES = {"source": "db1.shop.internal", "target": "db2.shop.internal"}
"""What the README calls both servers."""

CONTROL = "10.0.0.5"
"""The control node's address in the README."""

PASSWORD = "a new user's"


@pytest.fixture(scope="module")
def lab() -> t.Iterator[Place]:
    """A lab whose control node reaches both servers and does the work itself, or the test is skipped with the reason."""
    rooms.sweep()
    name = f"readme-{os.getpid()}"
    try:
        yield rooms.up(name, direct=True)
    except Unable as error:
        pytest.skip(f"no lab here: {error}")
    rooms.down(name)


class Newcomer:
    """Somebody at this machine, with a home whose changes are nobody else's and who knows both servers by name. All that they started ends
    with them.

    :param folder: theirs, for the clone and the inventory.
    """

    def __init__(self, lab: Place, folder: Path) -> None:
        self.folder = folder
        home, layer = Path.home(), folder / "layer"
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{lab.address(end)} {name}\n" for end, name in NAMES.items()))
        config = (lab.keys / "config").read_text()
        for end, name in NAMES.items():
            config = config.replace(f"Host {end}\n", f"Host {name}\n  HostKeyAlias {end}\n")
        (folder / "config").write_text(config)
        layer.mkdir()
        steps = (
            f"mount -t tmpfs tmpfs '{layer}'; mkdir '{layer}/upper' '{layer}/work'",
            f"mount -t overlay overlay -o 'lowerdir={home},upperdir={layer}/upper,workdir={layer}/work' '{home}'",
            f"mount --bind '{folder}/hosts' /etc/hosts; rm -rf '{home}/.ansible' '{home}/.ssh' '{home}/.local/share/pg_migration'",
            f"install -d -m 0700 '{home}/.ssh'; install -m 0600 '{folder}/config' '{home}/.ssh/config'; echo ready; exec sleep infinity",
        )
        words = ["unshare", "--mount", "--propagation", "private", "--pid", "--mount-proc", "--fork", "--kill-child"]
        self.process = subprocess.Popen(
            [*words, "sh", "-ec", "; ".join(steps)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            preexec_fn=servers.die_with_parent,
        )  # fmt: skip
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.inside = ["nsenter", "--mount", "--pid", "--target", children[0]]

    def type(self, command: str, where: str = "", good: bool = True) -> str:
        """Type ``command`` in a folder of theirs; it must end as ``good`` says. Returns what it said."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        environment.update(ANSIBLE_NOCOLOR="1", ANSIBLE_VAULT_PASSWORD_FILE=str(self.folder / "vault-password"))
        words = [*self.inside, "bash", "-c", f"cd '{self.folder / where}' && {command}"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=600, check=False)
        assert (done.returncode == 0) is good, f"{command}: {(done.stdout + done.stderr)[-6000:]}"
        return done.stdout + done.stderr

    def leave(self) -> None:
        """End, with all that was started."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def newcomer(lab: Place, tmp_path: Path) -> t.Iterator[Newcomer]:
    """See :class:`Newcomer`; with a clone of this repository in the folder ``clone``."""
    if not (REPO / ".git").exists():
        pytest.skip("this is no clone of a repository")
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(tmp_path / "clone")], check=True, stdin=subprocess.DEVNULL)
    one = Newcomer(lab, tmp_path)
    yield one
    one.leave()


def parts() -> tuple[list[str], str, str, str, list[str]]:
    """The blocks of the README's section, in its order: commands, SQL for the source and the target, the inventory, commands."""
    section = (REPO / "README.md").read_text(encoding="utf-8").partition("\n## Use it\n")[2].partition("\n## ")[0]
    install, source, target, inventory, plays = blocks(section, 7)
    return install.split("\n"), source, target, inventory, plays.split("\n")


def test_from_a_clone_to_the_cutover(lab: Place, newcomer: Newcomer) -> None:
    """Each line as it is written, but for the passwords and the control node's address. The restart of the source, which nobody makes
    unasked, is named, made, and the play is repeated."""
    (build, install, client), on_source, on_target, inventory, plays = parts()
    newcomer.type(build, "clone")
    newcomer.type(install, "clone")
    assert client.startswith("sudo apt-get install ") and shutil.which("pg_dump"), "it is installed here already"

    psql(lab, "source", "DROP ROLE migrator")  # the lab's own, so that the README's can be made
    for host, text in (("source", on_source), ("target", on_target)):
        psql(lab, host, text.replace("'...'", "'{}'".format(PASSWORD.replace("'", "''"))))

    mine = newcomer.folder / "mine"
    (mine / "group_vars" / "all").mkdir(parents=True)
    (newcomer.folder / "vault-password").write_text("open\n")
    (mine / "inventory.yml").write_text(inventory.replace(CONTROL, lab.door_address) + "\n")
    (mine / "group_vars" / "all" / "vault.yml").write_text("".join(f'vault_{end}_password: "{PASSWORD}"\n' for end in NAMES))
    newcomer.type("ansible-vault encrypt group_vars/all/vault.yml", "mine")

    for command in plays:
        needs_restart = "prepare_source" in command
        said = newcomer.type(command, "mine", good=not needs_restart)
        if needs_restart:
            assert "Restart the server at a time that suits you" in " ".join(said.split())
            restart(lab, "source")
            newcomer.type(command, "mine")
        if command.endswith("--check"):
            assert "predicted pause" in said
    assert "Succeeded. Writers were paused for" in said
    assert content(lab, "source") == content(lab, "target") and traces(lab) == []
