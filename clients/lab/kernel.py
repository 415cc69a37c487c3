"""The three system calls that the laboratory needs and Python 3.11 does not have.

`os.unshare` and `os.setns` came with 3.12. Called through ctypes, so they work on the calling *thread*, which is
what namespaces are a property of. Sources: unshare(2), setns(2), namespaces(7), prctl(2).
"""

import ctypes
import os

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
PR_SET_PDEATHSIG = 1


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces of the kinds in ``flags`` (CLONE_NEW*).

    Raises:
        OSError: EPERM without the privilege, ENOSPC when the system's limit is reached, EINVAL when
            CLONE_NEWUSER is asked for by a process of several threads.
    """
    _checked(ctypes.CDLL(None, use_errno=True).unshare(flags))


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind ``fd``, which must be of the kind CLONE_NEW*.

    Raises:
        OSError: EPERM without the privilege, EINVAL for another kind of namespace.
    """
    _checked(ctypes.CDLL(None, use_errno=True).setns(fd, kind))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
