"""Whether the process that wrote something still runs. A pid alone does not say: it may be another's by now."""

from __future__ import annotations

import psutil


def is_alive(pid: int, *, wrote_ns: int = 0) -> bool:
    """Say whether this process runs, and did so at `wrote_ns` (CLOCK_REALTIME; 0: unknown)."""
    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        # A clock tick is 10 ms, and boot time is known to a second: what is younger by more is somebody else.
        younger = wrote_ns > 0 and process.create_time() > wrote_ns / 1e9 + 2
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False
    except psutil.AccessDenied:
        return True  # it is there, and somebody else's
    return not zombie and not younger
