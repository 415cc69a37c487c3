"""Telling the service manager how a program fares: systemd's ``sd_notify`` protocol.

The manager puts the path of a Unix datagram socket into ``NOTIFY_SOCKET``; a program sends it lines such as
``READY=1`` or ``STOPPING=1``. A name that starts with ``@`` lies in Linux's abstract namespace.
"""

import os
import socket


def notify(state: str) -> bool:
    """Tell the service manager ``state``, e.g. ``"READY=1"``; answers whether it could be told.

    Without a service manager (no ``NOTIFY_SOCKET``), and when it can't be reached, nothing happens: a program
    must not fail because nobody listens.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return False
    return True
