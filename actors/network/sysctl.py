"""Kernel settings below ``/proc/sys/net``, changed so that they can be put back.

What one reads and writes there belongs to the network namespace of the calling *thread*.

A setting is put back only if it was this object that changed it and nobody changed it since. After a SIGKILL
nobody puts it back: an enabled ``ip_forward`` stays, harmless by itself, as no rule of ours remains.
"""

import errno
import os

from .errors import NetworkRefused
from .links import refused

_ROOT = "/proc/sys/net"


class Sysctls:
    """Settings that were changed here, with the values they had. A name is a path: ``ipv4/ip_forward``."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[str, str]] = {}
        """Name to the value it had and the value it was given."""

    def set(self, name: str, value: str) -> None:
        """Give the setting ``value``, if it has another.

        Raises:
            PermissionDenied: it may not be written (in many containers ``/proc/sys`` is read-only).
            NetworkRefused: this kernel does not have it.
        """
        before = read_sysctl(name)
        if before == value:
            return
        write_sysctl(name, value)
        self._before.setdefault(name, (before, value))

    @property
    def before(self) -> dict[str, tuple[str, str]]:
        """What was changed: name to the value it had and the value it was given."""
        return dict(self._before)

    def adopt(self, before: dict[str, tuple[str, str]]) -> None:
        """Answer for what a predecessor has changed."""
        self._before = dict(before)

    def restore(self) -> None:
        """Put everything back; what cannot be put back is left. Idempotent.

        Raises:
            NetworkError: the last of the refusals, once every setting was tried.
        """
        before, self._before = self._before, {}
        failure: Exception | None = None
        for name, (value, given) in reversed(before.items()):
            try:
                if read_sysctl(name) == given:
                    write_sysctl(name, value)
            except Exception as error:  # noqa: BLE001  (the others must still be put back)
                failure = error
        if failure is not None:
            raise failure


def read_sysctl(name: str) -> str:
    """The setting's value.

    Raises:
        NetworkRefused: this kernel does not have it.
    """
    try:
        with open(f"{_ROOT}/{name}", encoding="ascii") as setting:
            return setting.read().strip()
    except OSError as error:
        raise NetworkRefused(f"the setting {name} cannot be read", error.errno or errno.EIO) from error


def write_sysctl(name: str, value: str) -> None:
    """Give the setting a value.

    Raises:
        PermissionDenied, NetworkRefused: as `Sysctls.set`.
    """
    try:
        fd = os.open(f"{_ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        number = errno.EPERM if error.errno == errno.EROFS else error.errno or errno.EIO
        raise refused(f"the setting {name} cannot be set to {value}", number) from error
