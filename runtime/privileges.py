"""Giving up privileges: what a worker that only computes and talks never needs."""

from __future__ import annotations

import ctypes
import sys

from .errors import ExeuntError

_PR_SET_NO_NEW_PRIVS = 38
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop_capabilities() -> None:
    """Give up every capability of this thread and what it starts (capabilities(7)). Does nothing off Linux.

    Call it before other threads start: capabilities are per thread. Raises ExeuntError when the kernel refuses.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise ExeuntError(f"cannot set no_new_privs (errno {ctypes.get_errno()})")
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    if libc.capset(ctypes.byref(header), ctypes.byref((_Data * 2)())) != 0:
        raise ExeuntError(f"cannot drop capabilities (errno {ctypes.get_errno()})")
