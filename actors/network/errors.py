"""Why the host's network could not be changed, split by whom there is to blame.

::

    NetworkError
    ├── InvalidNetwork       the caller: no such address, network or device was configured here
    ├── PermissionDenied     the operator: this process lacks CAP_NET_ADMIN
    ├── InstanceBusy         the world: another running program of this instance owns the firewall table
    ├── FirewallRefused      the world: the kernel refused a change of its nf_tables, see ``errno``
    └── NetworkRefused       the world: the kernel refused a link, address, route or sysctl, see ``errno``

Opening a device raises `exeunt.actors.device.DeviceError` and its kinds.
"""


class NetworkError(Exception):
    """The host's network could not be changed."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """What a person can do about it; empty when there is nothing to say."""


class InvalidNetwork(NetworkError):
    """An address or network is malformed, or names a device that was not opened here."""


class PermissionDenied(NetworkError):
    """The kernel said EPERM or EACCES."""


class InstanceBusy(NetworkError):
    """The instance's firewall table exists and belongs to somebody who is alive."""


class FirewallRefused(NetworkError):
    """nf_tables refused, for instance because this kernel is built without it."""

    def __init__(self, message: str, errno: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class NetworkRefused(NetworkError):
    """rtnetlink or a sysctl refused."""

    def __init__(self, message: str, errno: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
