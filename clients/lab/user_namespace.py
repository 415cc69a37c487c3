"""Being root in a world of one's own: the laboratory for people who are not root.

In a new user namespace this process is root, which counts for the network and mount namespaces made together
with it, and for nothing else on the machine. Source: user_namespaces(7).
"""

import errno
import os

from exeunt.actors.device.tun import TUN_NODE
from exeunt.actors.network.links import Links

from .errors import LabUnavailable
from .kernel import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, unshare

_HINT = "Run it as root instead (sudo)."


def enter_user_namespace() -> None:
    """Move this whole process into new user, network and mount namespaces, where it is root.

    There is no way back. To be called early, while the process has one thread.

    Raises:
        LabUnavailable: the system forbids user namespaces, lets nobody but root open the TUN device, or this
            process has several threads. The process may then be in a namespace of no use, and should end.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        _write("setgroups", "deny")  # user_namespaces(7): else an unprivileged process may not map its group
        _write("uid_map", f"0 {uid} 1")
        _write("gid_map", f"0 {gid} 1")
        with Links() as links:
            links.set_up("lo")
    except Exception as error:
        raise LabUnavailable(_sentence(error), hint=_HINT) from error
    _require_tun()


def _require_tun() -> None:
    try:
        os.close(os.open(TUN_NODE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise LabUnavailable(
            f"this user may not open {TUN_NODE}: {os.strerror(error.errno or 0)}",
            hint=f"{_HINT[:-1]}, or permit it: sudo chmod 666 {TUN_NODE}",
        ) from error


def _sentence(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EINVAL:
        return "a user namespace can only be entered by a process of one thread"
    if number == errno.ENOSPC:
        return "this system allows no more user namespaces (user.max_user_namespaces)"
    return f"this system does not let an unprivileged user make namespaces: {error}"


def _write(file: str, value: str) -> None:
    with open(f"/proc/self/{file}", "w", encoding="ascii") as setting:
        setting.write(value)
