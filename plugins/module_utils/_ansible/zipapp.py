# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
"""The engine as one file that Python can run, made out of whatever it is imported from: a checkout, or the payload of a module.

The bytes depend on the sources alone (fixed dates, sorted names, nothing compressed), so the digest says which engine it is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pkgutil
import tempfile
import typing as t
import zipfile
from pathlib import Path

from .. import _engine
from .._engine.errors import ServiceError

PACKAGE = "pg_migration_engine"
_LAUNCHER = f"import sys\n\nfrom {PACKAGE}.cli import main\n\nsys.exit(main(sys.argv[1:]))\n"
_DATE = (1980, 1, 1, 0, 0, 0)


def sources() -> dict[str, str]:
    """Every file of the engine by its name in the archive."""
    files = {f"{PACKAGE}/__init__.py": "", "__main__.py": _LAUNCHER}
    prefix = _engine.__name__ + "."
    for info in pkgutil.walk_packages(_engine.__path__, prefix):
        spec = importlib.util.find_spec(info.name)
        loader = t.cast(t.Any, spec.loader if spec else None)
        text = loader.get_source(info.name) if loader else None
        if text is None and not info.ispkg:
            raise ServiceError(f"The source of {info.name} cannot be read.", code="PGM8005")
        path = info.name[len(prefix) :].replace(".", "/") + ("/__init__.py" if info.ispkg else ".py")
        files[f"{PACKAGE}/{path}"] = text or ""
    return files


def build() -> bytes:
    """The archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(sources().items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, text)
    return buffer.getvalue()


def digest_of(content: bytes) -> str:
    """First twelve digits of its SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


class EngineFolder:
    """The folder ``HOME/engine``: the archives and the link ``current``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder = home / "engine"
        self.current = self._folder / "current"

    def file(self, digest: str) -> Path:
        """Where the engine with ``digest`` lies."""
        return self._folder / f"engine-{digest}.pyz"

    def state(self) -> dict[str, str]:
        """What the link points to; empty if there is none."""
        return {"current": os.path.basename(os.readlink(self.current)) if self.current.is_symlink() else ""}

    def exists(self) -> bool:
        """Is anything there?"""
        return self._folder.exists()

    def differs(self, content: bytes) -> bool:
        """Is the current engine another one than ``content``, or damaged?"""
        wanted = self.file(digest_of(content))
        return self.state()["current"] != wanted.name or not wanted.is_file() or wanted.read_bytes() != content

    def install(self, content: bytes) -> None:
        """Write ``content`` and let the link point to it; the engine before it stays, older ones go.

        :raises ServiceError: if ``home`` does not exist or cannot be written.
        """
        previous = self.state()["current"]
        wanted = self.file(digest_of(content))
        try:
            self._folder.mkdir(mode=0o755, exist_ok=True)
            self._replace(wanted, content)
            link = self._folder / f".current.{os.getpid()}"
            link.symlink_to(wanted.name)
            os.replace(link, self.current)
        except OSError as exc:
            raise ServiceError(
                f"Could not install the engine in {self._folder}: {exc.strerror or exc}",
                code="PGM8004",
                hint="Run the role pg_migration_runtime.",
            ) from exc
        for old in self._folder.glob("engine-*.pyz"):
            if old.name not in (wanted.name, previous):
                old.unlink()

    def remove(self) -> None:
        """Take everything away."""
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()

    def _replace(self, path: Path, content: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
