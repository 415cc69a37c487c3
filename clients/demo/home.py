"""The demo's temporary home, and cleaning up after one that was killed.

A demo's directory carries its pid in its name. Whoever starts next removes those whose process is gone: all else that a
killed demo had (namespaces, devices, rules, child processes) went with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import psutil

_PREFIX: Final = "exeunt-demo-"
_KEPT_PREFIX: Final = "exeunt-kept-"


def make_home(*, keep: bool = False) -> Path:
    """Make a fresh directory of ours, after removing those of dead demos. One that is to be kept is never removed."""
    sweep()
    return Path(tempfile.mkdtemp(prefix=_KEPT_PREFIX if keep else f"{_PREFIX}{os.getpid()}-"))


def sweep() -> list[Path]:
    """Remove the directories of demos that are gone; return which."""
    removed: list[Path] = []
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).split("-", 1)[0]
        try:
            ours = path.stat(follow_symlinks=False).st_uid == os.geteuid()
        except FileNotFoundError:  # its demo, or another one that has just begun, removes it, too
            continue
        if pid.isdigit() and ours and not psutil.pid_exists(int(pid)):
            remove(path)
            removed.append(path)
    return removed


def remove(path: Path) -> None:
    """Remove a home."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path)
