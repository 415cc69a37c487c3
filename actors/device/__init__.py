"""Devices that carry the tunnel's inner packets, and the pure tables that read and steer those packets.

A TUN descriptor reads and writes one IP packet at a time. Nothing here knows of peers or keys.
"""

from .errors import DeviceBusy, DeviceError, DeviceUnavailable, InvalidDeviceName, PermissionDenied
from .packet import IpHeader, read_header
from .routes import AllowedIPs
from .tun import open_tun

__all__ = [
    "AllowedIPs",
    "DeviceBusy",
    "DeviceError",
    "DeviceUnavailable",
    "InvalidDeviceName",
    "IpHeader",
    "PermissionDenied",
    "open_tun",
    "read_header",
]
