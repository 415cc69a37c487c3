"""A network laboratory of namespaces: two sites behind NATs, an internet between them, faults on demand.

The demo and the system tests run in it. Nothing has a name that could outlive the process: namespaces are held by
file descriptor, children are told when the laboratory dies, so even after ``kill -9`` nothing is left.
"""

from .errors import LabError, LabUnavailable
from .faults import cut, heal, lose
from .namespace import Namespace, Route, connect, occupants
from .nat import NatKind, install_nat
from .topology import Lab, Site
from .user_namespace import enter_user_namespace

__all__ = [
    "Lab",
    "LabError",
    "LabUnavailable",
    "Namespace",
    "NatKind",
    "Route",
    "Site",
    "connect",
    "cut",
    "enter_user_namespace",
    "heal",
    "install_nat",
    "lose",
    "occupants",
]
