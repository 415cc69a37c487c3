"""The workers that peers' connections live in, and each worker's end of the tunnel: what everything is called.

A worker has a device actor and a TUN device of its own. Packets of a connection never leave its worker, so the kernel
has to hand a packet to the right one, and for that it knows devices and routes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

DEVICE_NAME_BYTES: Final = 15
"""IFNAMSIZ, without its terminating zero (Linux, include/uapi/linux/if.h)."""
PEER_WORKERS_MAX: Final = 16
"""More would be a mistake: each costs a process, and the kernel's own work for a packet does not shrink."""


def peer_workers(count: int) -> tuple[str, ...]:
    """Name the workers that host peer connections."""
    return tuple(f"peers-{number}" for number in range(1, count + 1))


def device_name(device: str, index: int) -> str:
    """Return what a worker's TUN device is called: the first one's as configured, then `exeunt0-2` and so on."""
    return device if index == 0 else f"{device}-{index + 1}"


def device_actor(index: int) -> str:
    """Return what the actor is called that has it."""
    return device_name("device", index)


def hand_over_path(ipc: Path, worker: str) -> str:
    """Return where a worker's device actor takes the TUN descriptor."""
    return str(ipc / f"{worker}.device")
