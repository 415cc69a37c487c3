"""Finding a path to a peer behind NATs (ICE, RFC 8445), keeping it, and noticing when it is gone.

Read `agent` for the interface, `machine` for the protocol, `connection` for the sockets around it. aioice supplies the
STUN codec and the TURN client; everything that is used of it is named in `tests/actors/ice/test_aioice_contract.py`.
"""

from .agent import (
    Address,
    Callbacks,
    Credentials,
    IceConfig,
    IceServer,
    Lost,
    NeverConnected,
    Path,
    PathAgent,
    Route,
    new_username_and_password,
    one_by_one,
)
from .ice_agent import IceAgent
from .sockets import Sockets

__all__ = [
    "Address",
    "Callbacks",
    "Credentials",
    "IceAgent",
    "IceConfig",
    "IceServer",
    "Lost",
    "NeverConnected",
    "Path",
    "PathAgent",
    "Route",
    "Sockets",
    "new_username_and_password",
    "one_by_one",
]
