"""Why a device could not be had, split by whom there is to blame.

::

    DeviceError
    ├── InvalidDeviceName    the caller: no interface may be called that
    ├── PermissionDenied     the operator: this process lacks CAP_NET_ADMIN, or may not open the node
    ├── DeviceBusy           the world: somebody has an interface of this name
    └── DeviceUnavailable    the world: this system has no TUN driver, or it failed in another way

Each carries a sentence for people in ``str(error)`` and, where there is one, the next thing to do in
``hint``.
"""


class DeviceError(Exception):
    """A network device could not be opened or configured."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """What a person can do about it; empty when there is nothing to say."""


class InvalidDeviceName(DeviceError):
    """The name is empty, longer than 15 bytes, or has characters that Linux refuses (``dev_valid_name``)."""


class PermissionDenied(DeviceError):
    """The kernel said EPERM or EACCES."""


class DeviceBusy(DeviceError):
    """An interface of this name exists, so exclusive use cannot be had."""


class DeviceUnavailable(DeviceError):
    """There is no TUN driver here, or the driver refused for a reason of its own."""
