# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""A headless Chromium, driven through chromedriver by the W3C WebDriver protocol: sizes, colours, console, pictures."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

from servers import free_port

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def available() -> bool:
    """Are browser and driver installed?"""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


class Browser:
    """One browser with an empty profile in ``folder``; to be used in a ``with``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._session = ""

    def __enter__(self) -> Browser:
        command = ["chromedriver", f"--port={self._port}"]
        self._driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 30
        while not self._ready():
            if time.monotonic() > limit:
                raise AssertionError("chromedriver does not answer")
            time.sleep(0.05)
        chrome = {"args": [*OPTIONS, f"--user-data-dir={self._folder}"], "binary": shutil.which("chromium")}
        wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._session:
            self._call("DELETE", f"/session/{self._session}")
        self._driver.terminate()
        self._driver.wait(timeout=30)

    def _ready(self) -> bool:
        try:
            return bool(self._call("GET", "/status")["ready"])
        except urllib.error.URLError:
            return False

    def _call(self, method: str, path: str, body: t.Any = None) -> t.Any:
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def _tell(self, path: str, body: t.Any = None) -> t.Any:
        return self._call("POST", f"/session/{self._session}{path}", body)

    def _devtools(self, command: str, **parameters: t.Any) -> t.Any:
        return self._tell("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, page: Path, *, width: int, height: int = 800, dark: bool = False) -> None:
        """Show a file in a window of this size (CSS pixels)."""
        self._devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._devtools("Emulation.setEmulatedMedia", features=features)
        self._tell("/url", {"url": page.as_uri()})

    def run(self, script: str) -> t.Any:
        """The value of a JavaScript expression."""
        return self._tell("/execute/sync", {"script": f"return ({script})", "args": []})

    def reload(self) -> None:
        """Load the page again."""
        self._tell("/refresh")

    def console(self) -> list[str]:
        """What the page and the browser complained of since the last look."""
        return [f"{entry['level']} {entry['message']}" for entry in self._tell("/se/log", {"type": "browser"})]

    def picture(self, *, height: int) -> bytes:
        """The page from its top down to ``height``, as PNG."""
        clip = {"x": 0, "y": 0, "width": self.run("window.innerWidth"), "height": height, "scale": 1}
        shot = self._devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])
