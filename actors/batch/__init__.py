"""Many packets at once: what is done to each of them, in one call for all.

A *kernel* turns a frame of the TUN device into a train of sealed datagrams, and a burst of datagrams into frames. Read
`contract` first.
"""

from .contract import (
    MAX_DATAGRAMS,
    MAX_FRAME_BYTES,
    OUT_BYTES_EACH,
    TRAIN_BYTES,
    VNET_BYTES,
    Kernel,
    Opened,
    Opening,
    Sealed,
    Sealing,
    Window,
)

__all__ = [
    "MAX_DATAGRAMS",
    "MAX_FRAME_BYTES",
    "OUT_BYTES_EACH",
    "TRAIN_BYTES",
    "VNET_BYTES",
    "Kernel",
    "Opened",
    "Opening",
    "Sealed",
    "Sealing",
    "Window",
]
