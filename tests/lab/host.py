# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""One host of a lab, as a process of its own: ``python -m lab.host FOLDER HOST``.

It runs in a mount namespace of its own, so its mounts go when it goes. It puts the host's layer over the tree, boots it with
systemd-nspawn (or, where there is none, runs sshd alone in namespaces), and boots again when the host reboots.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab import cgroups, network, tree, versions
from lab.place import REPO, Place, load

REBOOT = 133
"""How nspawn ends when the host wants to boot again and the unit is ours to keep."""


def start(place: Place, host: str) -> None:
    """Start the process of ``host``, where it is not running."""
    if running(place, host):
        return
    folder = place.host_folder(host)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "lab.host", str(place.folder), host]
    environment = {**os.environ, "PYTHONPATH": str(REPO / "tests")}
    with (folder / "console.log").open("ab") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, env=environment, close_fds=True
        )
    (folder / "pid").write_text(str(process.pid))


def running(place: Place, host: str) -> int:
    """The process's id, 0 where it is not running; a number that another program got since is not taken for it."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((place.host_folder(host) / "pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if str(place.folder).encode() in words and host.encode() in words:
            return pid
    return 0


def stop(place: Place, host: str) -> None:
    """End the host as a power cut does, and wait until nothing of it is left."""
    pid = running(place, host)
    if pid:
        os.kill(pid, signal.SIGTERM)
    limit = time.monotonic() + 20
    while running(place, host) and not zombie(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    if running(place, host) and not zombie(pid):
        os.kill(pid, signal.SIGKILL)
    network.end_processes(place, host)
    cgroups.remove(place, host)


def zombie(pid: int) -> bool:
    """Has it ended, and its parent has not noticed?"""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def run(*words: str | Path) -> None:
    """Run a program; an error carries what it said."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


def mount(folder: Path) -> Path:
    """The host's file system: its own layer over the tree. Where the folder's file system cannot hold a layer, memory does."""
    root = folder / "root"
    for attempt in ("disk", "memory"):
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        try:
            options = f"lowerdir={tree.folder()},upperdir={folder / 'upper'},workdir={folder / 'work'}"
            run("mount", "-t", "overlay", "overlay", "-o", options, root)
            return root
        except RuntimeError:
            if attempt == "memory":
                raise
            run("mount", "-t", "tmpfs", "tmpfs", folder)
    return root


def furnish(place: Place, host: str, root: Path) -> None:
    """Write what makes the host this one: its name, the others' addresses, keys."""
    (root / "etc/hostname").write_text(f"{host}\n")
    (root / "etc/machine-id").write_text("")
    names = "".join(f"{place.address(one)} {one}\n" for one in place.hosts)
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{names}")
    for path in (root / "etc/ssh").glob("ssh_host_*"):
        path.unlink()
    for suffix, mode in (("", 0o600), (".pub", 0o644)):
        path = root / f"etc/ssh/ssh_host_ed25519_key{suffix}"
        shutil.copyfile(place.keys / f"host_{host}{suffix}", path)
        path.chmod(mode)
    home = root / "home" / tree.USER
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(place.keys / "id.pub", home / ".ssh/authorized_keys")
    owner = home.stat()
    for path in (home / ".ssh", home / ".ssh/authorized_keys"):
        os.chown(path, owner.st_uid, owner.st_gid)


def boot_words(place: Place, host: str, root: Path) -> list[str]:
    """The command that is the host."""
    if place.init == "systemd":
        words = ["systemd-nspawn", "--quiet", "--boot", "-D", str(root), f"--machine={host}", f"--hostname={host}", "--register=no"]
        words += ["--keep-unit", f"--network-namespace-path=/run/netns/{place.namespace(host)}", "--link-journal=no", "--console=pipe"]
        return words
    steps = [f"hostname {host}", f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    steps += [f"mount -t tmpfs tmpfs {root}/{name}" for name in ("run", "dev/shm")]
    steps += [
        f"mkdir -p {root}/run/sshd {root}/run/postgresql",
        f"chmod 1777 {root}/run/postgresql",
        f"exec chroot {root} /usr/sbin/sshd -D -e",
    ]
    own = ["unshare", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
    return ["ip", "netns", "exec", place.namespace(host), *own, "sh", "-ec", "; ".join(steps)]


def switch_off(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process of the host, with which all others end."""
    with contextlib.suppress(OSError):
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def main(folder: str, host: str) -> None:
    """Be the host until it is switched off or SIGTERM comes."""
    place = load(Path(folder).name)
    root = mount(place.host_folder(host))
    furnish(place, host, root)
    versions.install(place, host, root)
    if place.init == "systemd":
        os.makedirs("/run/systemd/nspawn", exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", "/run/systemd/nspawn")
    cgroups.enter(place, host)
    environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    asked: list[int] = []
    status = REBOOT
    while status == REBOOT and not asked:
        process = subprocess.Popen(boot_words(place, host, root), stdin=subprocess.DEVNULL, env=environment)
        # the handler must not wait itself: it would wait for the lock that the wait below holds
        signal.signal(signal.SIGTERM, lambda number, dummy, process=process: (asked.append(number), switch_off(process)))
        status = process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
