# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A slow link between this machine and a network namespace: delay, rate, loss and silence, made in user space, because not every kernel
has netem.

Two TAP devices stand for the ends of a cable, one here and one in the namespace; a process of its own carries frames from one to the other,
each when it is due. TCP on both ends is the kernel's, so windows, acknowledgements and losses are those of a real line. Needs root.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import json
import mmap
import multiprocessing
import os
import random
import secrets
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
POSSIBLE = os.geteuid() == 0 and os.path.exists("/dev/net/tun")
COUNTERS = struct.Struct("QQ")
SILENT = COUNTERS.size
"""Where in the shared memory the byte is that tells the carrier to carry nothing."""
START = """
import json, sys
sys.path.insert(0, sys.argv[1])
import conftest
from host import Host
from pathlib import Path
from ansible_collections.pgops.migration.plugins.module_utils._engine.spec import MigrationSpec
Host(Path(sys.argv[2])).manager.start(MigrationSpec.from_dict(json.load(sys.stdin)))
"""
FRAMES = 64
"""Frames taken at one look, so that neither direction waits long for the other."""


def ip(*words: str) -> None:
    """Run ``ip``; an error carries its output."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def free_net() -> int:
    """A number for which 10.NUMBER.0.0/24 is not in use here."""
    shown = subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    used = {address["local"].split(".")[1] for link in json.loads(shown) for address in link.get("addr_info", ())}
    return next(number for number in range(180, 250) if str(number) not in used)


class SlowLink:
    """Use as a context manager. ``near`` is our address, as the namespace ``name`` sees it.

    :param rate: bits a second in each direction. :param delay: seconds in each direction. :param loss: share of the frames that never come.
    """

    def __init__(self, rate: float, delay: float, loss: float = 0.0) -> None:
        self.rate, self.delay, self.loss = rate, delay, loss
        self.name = f"pgm-far-{secrets.token_hex(3)}"
        self._devices = [f"pgml{secrets.token_hex(3)}{end}" for end in "nf"]
        self._shared = mmap.mmap(-1, COUNTERS.size + 1)
        self._carrier: multiprocessing.process.BaseProcess | None = None
        self._listening: list[socket.socket] = []
        self.near = ""

    def __enter__(self) -> SlowLink:
        net = f"10.{free_net()}.0"
        self.near = f"{net}.1"
        ends = [self._tap(device) for device in self._devices]
        ip("netns", "add", self.name)
        here, there = self._devices
        ip("link", "set", there, "netns", self.name)
        ip("addr", "add", f"{self.near}/24", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", self.name, "addr", "add", f"{net}.2/24", "dev", there)
        ip("-n", self.name, "link", "set", there, "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        context = multiprocessing.get_context("fork")
        self._carrier = context.Process(target=carry, args=(*ends, self.rate / 8, self.delay, self.loss, self._shared), daemon=True)
        self._carrier.start()
        for end in ends:
            os.close(end)
        return self

    def __exit__(self, *dummy: object) -> None:
        for listener in self._listening:
            listener.close()
        if self._carrier:
            self._carrier.kill()
            self._carrier.join()
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def carried(self) -> tuple[int, int]:
        """Bytes of frames that went to the namespace, and from it."""
        there, back = COUNTERS.unpack_from(self._shared)
        return there, back

    @contextlib.contextmanager
    def silent(self) -> t.Iterator[None]:
        """Inside the block every frame is lost, both ways, and nobody is told: a partition of the network."""
        self._shared[SILENT] = 1
        try:
            yield
        finally:
            self._shared[SILENT] = 0

    def start(self, home: Path, described: dict[str, t.Any]) -> None:
        """Start the migration ``described`` on the runtime host in the folder ``home``, which is in the namespace."""
        words = ["ip", "netns", "exec", self.name, sys.executable, "-c", START, str(Path(__file__).parent), str(home)]
        subprocess.run(words, input=json.dumps(described), text=True, check=True, timeout=300)

    def enter(self) -> None:
        """Sockets that this thread opens from now on are in the namespace; there is no way back."""
        with open(f"/run/netns/{self.name}", "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {self.name}")

    def lead(self, host: str, port: int) -> int:
        """A port of :attr:`near` that leads to a server that listens elsewhere on this machine."""
        listener = socket.create_server((self.near, 0))
        self._listening.append(listener)
        threading.Thread(target=_accept, args=(listener, host, port), daemon=True).start()
        return int(listener.getsockname()[1])

    @staticmethod
    def _tap(device: str) -> int:
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
        return handle


def carry(near: int, far: int, rate: float, delay: float, loss: float, shared: mmap.mmap) -> None:
    """Carry frames for ever. ``rate`` in bytes a second: a frame leaves when those before it have left, and arrives ``delay`` later. What
    would have to wait for longer than twice the delay and 20 ms is lost, as in a router's queue."""
    ends = (near, far)
    waiting: tuple[collections.deque[tuple[float, bytes]], ...] = (collections.deque(), collections.deque())
    free = [0.0, 0.0]
    dice = random.Random(1)
    carried = [0, 0]
    while True:
        due = min((queue[0][0] for queue in waiting if queue), default=None)
        ready, dummy, dummy2 = select.select(ends, [], [], None if due is None else max(0.0, due - time.monotonic()))
        now = time.monotonic()
        for side in (0, 1):
            if ends[side] in ready:
                for frame in _frames(ends[side]):
                    leaves = max(now, free[side]) + len(frame) / rate
                    if leaves - now < 2 * delay + 0.02:
                        free[side] = leaves
                        if shared[SILENT] or dice.random() < loss:
                            continue
                        waiting[side].append((leaves + delay, frame))
            queue = waiting[side]
            while queue and queue[0][0] <= now:
                frame = queue.popleft()[1]
                carried[side] += len(frame)
                try:
                    os.write(ends[1 - side], frame)
                except OSError:  # the device is down, or its queue is full: lost
                    continue
        COUNTERS.pack_into(shared, 0, *carried)


def _frames(handle: int) -> t.Iterator[bytes]:
    for dummy in range(FRAMES):
        try:
            yield os.read(handle, 65536)
        except OSError:
            return


def _accept(listener: socket.socket, host: str, port: int) -> None:
    while True:
        try:
            client = listener.accept()[0]
            server = socket.create_connection((host, port))
        except OSError:
            return
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(1 << 18):
            other.sendall(data)
    except OSError:
        pass
    for end in (one, other):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
