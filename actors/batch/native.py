"""The kernel in C, where there is one: it has to have been built, and to find the system's libcrypto.

Nobody needs it, since `pure` does the same, only slower. So whatever is missing is no error but a reason.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .contract import TRAIN_BYTES, VNET_BYTES, Kernel, Opened, Opening, ReadFrames, Receive, Sealed, Sealing, Window
from .lanes import Lanes

_HEADER_BYTES: Final = 16


class NativeKernel:
    """What the compiled module has, as a `Kernel`."""

    name = "native"

    def __init__(self, compiled: ModuleType) -> None:
        self._sealing: Callable[[bytes, int, type[Sealed]], Sealing] = compiled.Sealing
        self._opening: Callable[[bytes, array[int], type[Opened]], Opening] = compiled.Opening
        self.index_of: Callable[[memoryview, array[int]], int | None] = compiled.index_of
        self.receive: Receive | None = getattr(compiled, "receive", None)  # it is written for Linux
        self.read_frames: ReadFrames | None = getattr(compiled, "read_frames", None)
        self.lanes: Callable[[], Lanes] | None = getattr(compiled, "Lanes", None)
        self.libcrypto: str = compiled.LIBCRYPTO.split()[:2][-1]
        """The version of the library that does the cipher."""

    def sealing(self, key: bytes, remote_index: int) -> Sealing:
        """See `Kernel`."""
        return self._sealing(key, remote_index, Sealed)

    def opening(self, key: bytes, window: Window) -> Opening:
        """See `Kernel`."""
        return self._opening(key, window.state, Opened)


def load() -> NativeKernel | None:
    """Return the kernel, or None; the first time takes a millisecond."""
    found = _found()
    return found if isinstance(found, NativeKernel) else None


def absent_because() -> str | None:
    """Say why `load` returns None, or None where it does not."""
    found = _found()
    return found if isinstance(found, str) else None


@cache
def _found() -> NativeKernel | str:
    return find(lambda: import_module("._native", __package__))


def find(compiled: Callable[[], ModuleType]) -> NativeKernel | str:
    """Return the kernel that the function imports, or why it is none to be used."""
    try:
        kernel = NativeKernel(compiled())
    except ModuleNotFoundError:
        return "it has not been built"
    except ImportError as error:
        return str(error)
    return kernel if seals_rightly(kernel) else f"libcrypto {kernel.libcrypto} does not seal as it should"


def seals_rightly(kernel: Kernel) -> bool:
    """Compare one packet with what another implementation makes of it: a cipher that errs must not come into use."""
    key, packet, counter = bytes(range(32)), b"\x45\0\0\x40" + bytes(60), 7
    train = bytearray(TRAIN_BYTES)
    frame = memoryview(bytearray(VNET_BYTES) + packet)
    try:
        sealed = kernel.sealing(key, 1).seal(frame, memoryview(train), counter=counter, mtu=1280)
    except RuntimeError:  # a libcrypto that may not use this cipher, as by FIPS 140
        return False
    expected = ChaCha20Poly1305(key).encrypt(bytes(4) + counter.to_bytes(8, "little"), packet, None)
    return bytes(train[_HEADER_BYTES : sealed.total]) == expected
