"""Which kernel the data path uses: the native one where it can be had, else the one in Python."""

import os
from functools import cache
from typing import Final, NamedTuple

from . import native, pure
from .contract import Kernel

SWITCH: Final = "EXEUNT_NATIVE"
"""Environment variable: 0 turns the native kernel off."""


class Choice(NamedTuple):
    """A kernel, and the reason for it."""

    kernel: Kernel
    why: str
    """What a person wants to know of it: the cipher's library, or what is in the native kernel's way."""


def choose() -> Kernel:
    """Return the kernel to use, the same for the life of the process."""
    return _chosen().kernel


def choose_why() -> str:
    """Say in a few words why it is this one, such as "libcrypto 3.0.22"."""
    return _chosen().why


@cache
def _chosen() -> Choice:
    return decide(os.environ.get(SWITCH))


def decide(switch: str | None) -> Choice:
    """Choose by the switch's value, and by what there is."""
    if switch == "0":
        return Choice(pure.KERNEL, f"{SWITCH}=0")
    kernel = native.load()
    if kernel is None:
        return Choice(pure.KERNEL, native.absent_because() or "")
    return Choice(kernel, f"libcrypto {kernel.libcrypto}")
