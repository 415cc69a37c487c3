"""A network laboratory of namespaces: sites behind NATs, an internet between them, faults on demand.

`Lab` is the usual one, a client's site and a gateways'; `Internet` takes any number of sites. The demo, the system
tests, the NAT matrix and the benchmarks run in it. Nothing has a name that could outlive the process, so several
stand side by side: namespaces are held by file descriptor, children are told when the laboratory dies, so even after
``kill -9`` nothing is left.
"""

from .cabling import connect
from .errors import LabError, LabUnavailable
from .faults import cut, heal, lose
from .impairment import Impairment
from .internet import Delays, Internet
from .namespace import Namespace, Route, occupants
from .nat import install_nat
from .nat_kinds import NatKind
from .site import Site
from .topology import Lab
from .user_namespace import enter_user_namespace

__all__ = [
    "Delays",
    "Impairment",
    "Internet",
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
