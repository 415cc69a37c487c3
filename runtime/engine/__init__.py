"""Engines: where the workers of a supervisor run. `make` gives one by its name.

    inline      on the caller's own thread
    processes   each a process of this machine (the default)
    ray         each a process of a Ray cluster, on whichever machine (the extra exeunt[ray])

Supervision, refs, watches, traces and endings are the same on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from ..directories import Directories
from ..errors import LocalError
from .engine import Engine, Worker
from .inline import Inline
from .processes import Processes
from .ray import Ray

Kind = Literal["inline", "processes", "ray"]

__all__ = ["Engine", "Inline", "Kind", "Processes", "Ray", "Worker", "make"]


def make(kind: Kind, *, directories: Directories, preload: Sequence[str] = (), rings: bool = True) -> Engine:
    """Return an engine for one supervisor.

    `preload` is for `processes`: modules that its fork server imports once. `rings` is for `inline`: whether each
    worker has a flight recorder; workers that are processes always have one. Raises LocalError for `ray` where Ray is
    not installed, and for a kind that doesn't exist.
    """
    if kind == "inline":
        return Inline(rings=rings)
    if kind == "processes":
        return Processes(directories, preload)
    if kind == "ray":
        return Ray(directories)
    raise LocalError(f"no such engine: {kind!r}; there are {', '.join(get_args(Kind))}")
