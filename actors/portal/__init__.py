"""The link to the portal: what is said on it, who decides, and the socket."""

from .events import LinkDenied, LinkDown, LinkEvent, LinkJoined, LinkLeft, LinkMessage
from .io import Link
from .machine import LinkMachine
from .reports import EndingReport, Observation
from .url import websocket_url

__all__ = [
    "EndingReport",
    "Link",
    "LinkDenied",
    "LinkDown",
    "LinkEvent",
    "LinkJoined",
    "LinkLeft",
    "LinkMachine",
    "LinkMessage",
    "Observation",
    "websocket_url",
]
