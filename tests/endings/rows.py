"""How each row is played: a function that does what its row says, and returns the moment at which it happened.

The moment is in Unix seconds, read just before the event; records carry the same clock. A row may also need somebody
on the stage again before the next run: that is its second function.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Final

from exeunt.actors.device.packet import read_header
from exeunt.actors.gateway_loop import CLIENT_NETWORKS
from exeunt.actors.messages import StopSession
from exeunt.actors.peer.messages import Close
from exeunt.clients.demo.stage import PORTAL_PORT, RESOURCE_NAME

from . import injection
from .clock import unix
from .expected import ASLEEP_S
from .house import House, Link, Needs
from .link_faults import mend_portal_link, reset_portal_link
from .short_lived import LIFETIME_S

DEVICE: Final = "exeunt0"
IDLE_S: Final = 2.0
STRAGGLERS_S: Final = 20.0
"""On a bad line TCP takes a while to close a connection, and packets of that are traffic, too."""
CUT_S: Final = 5.0
PORTAL_AWAY_S: Final = 15.0
"""Longer than the 10 s between two heartbeats: the next one shows the portal that the link is gone."""
_ETH_P_ALL: Final = 3
_SO_TIMESTAMPNS: Final = 35
"""Of linux/if_ether.h and asm-generic/socket.h; Python has neither."""
_TIMESPEC: Final = struct.Struct("@ll")
_TUNNEL_NETWORKS: Final = tuple(ip_network(one) for one in CLIENT_NETWORKS)
_NONSENSE: Final = "no cause of anything"

Play = Callable[[House, Link], float]
Mend = Callable[[House, Link], None]


def _nothing(_house: House, _link: Link) -> None:
    """Nobody else was touched."""


@dataclass(frozen=True)
class Played:
    """A row's functions, and what it asks of the harness."""

    play: Play
    mend: Mend = _nothing
    settle: Mend = _nothing
    """Waits until everybody is there again whom `mend` has called, or the event itself: without the processor."""
    needs: Needs = field(default_factory=Needs)
    waits: bool = False
    """Most of its time is waiting: many stages may play it side by side."""
    options: tuple[str, ...] = ()
    """Of the client's command line."""
    client_ends: bool = False
    """The client's program ends by it."""
    files_stay: bool = False
    """Nobody is left to remove the files; the next start of the program does."""
    releases: bool = True
    """Whoever has allocations at the relay can release them: lives, and sends from the address that they are for. Else
    they last until their time is over."""


# --- the client's own doing ---


def _sign_out(house: House, _link: Link) -> float:
    moment = time.time()
    house.client.ask("stop", {"reason": "signed_out"})
    return moment


def _signal(number: signal.Signals) -> Play:
    def play(house: House, _link: Link) -> float:
        moment = time.time()
        os.kill(house.client.pid, number)
        return moment

    return play


def _second_signal(house: House, _link: Link) -> float:
    """Whoever sends a second one has not seen the first one do anything: the worker stands still."""
    injection.stop(house.worker_pid(house.client, "peers-1"))
    os.kill(house.client.pid, signal.SIGINT)
    moment = time.time()
    os.kill(house.client.pid, signal.SIGTERM)  # another one: a second one of a kind that is pending is lost
    return moment


def _idle(house: House, link: Link) -> float:
    """The last packet of the tunnel that passed the client's device, either way, is what idleness is counted from. The
    system leads checks of paths into the device, too, when a host of the gateway's side has an address that a resource
    has; those are not for the tunnel.
    """
    with house.lab.client.run(_packets_of_tunnel) as packets:
        house.open_socket(3.0).close()
        last, deadline = time.time(), time.monotonic() + IDLE_S + STRAGGLERS_S
        while house.ending_of(house.client, link) is None and time.monotonic() < deadline:
            if select.select([packets], [], [], 0.01)[0]:
                packet, ((_, _, stamp),), _, _ = packets.recvmsg(65_535, socket.CMSG_SPACE(_TIMESPEC.size))
                seconds, nanoseconds = _TIMESPEC.unpack(stamp)
                if _is_of_tunnel(packet):
                    last = seconds + nanoseconds / 1e9
    return last + IDLE_S


def _is_of_tunnel(packet: bytes) -> bool:
    header = read_header(packet)
    ends = () if header is None else (ip_address(header.source), ip_address(header.destination))
    return any(end in network for end in ends for network in _TUNNEL_NETWORKS)


def _packets_of_tunnel() -> socket.socket:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    packets.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    packets.bind((DEVICE, _ETH_P_ALL))
    return packets


# --- crashes ---


def _connection_raises(house: House, link: Link) -> float:
    return injection.tell(house.client, "peers-1", f"peer-{link.id}", Close(_NONSENSE))


def _loop_raises(house: House, _link: Link) -> float:
    return injection.tell(house.client, "control", "event-loop", StopSession(_NONSENSE))


def _kill_worker(house: House, _link: Link) -> float:
    return injection.kill(house.worker_pid(house.client, "peers-1"))


def _starve_worker(house: House, _link: Link) -> float:
    return injection.exhaust_memory(house.client, "peers-1", house.worker_pid(house.client, "peers-1"))


def _kill_supervisor(house: House, _link: Link) -> float:
    return injection.kill(house.client.pid)


def _kill_tree(house: House, _link: Link) -> float:
    return injection.kill_all(house.tree)


def _sleep(house: House, _link: Link) -> float:
    with injection.asleep(house.tree) as moment:
        time.sleep(ASLEEP_S)
    return moment


# --- the gateway's ---


def _gateway_leaves(house: House, link: Link) -> float:
    moment = time.time()
    house.gateway(link).terminate()
    return moment


def _gateway_returns(house: House, link: Link) -> None:
    """The client goes on through the other gateway; the one that left comes back."""
    house.open_socket(5.0).close()
    left = house.gateway(link)
    left.end()
    again = left.again()
    house.gateways[house.gateways.index(left)] = again
    house.players[house.players.index(left)] = again
    house.start_gateway(again)


def _kill_gateway_worker(house: House, link: Link) -> float:
    gateway = house.gateway(link)
    return injection.kill(house.worker_pid(gateway, "peers-1"))


def _gateway_worker_is_back(house: House, link: Link) -> None:
    gateway = house.gateway(link)
    gateway.wait_for("its worker again", lambda: _has_device(house, link))
    gateway.note_workers()


def _has_device(house: House, link: Link) -> bool:
    rows = house.gateway(link).ask("ps")
    return any(row["address"].endswith("/device") and row["state"] == "running" for row in rows)


# --- worker processes that are succeeded ---


def _restart_client_worker(house: House, _link: Link) -> float:
    return house.restart(house.client, "peers-1")


def _restart_gateway_worker(house: House, link: Link) -> float:
    return house.restart(house.gateway(link), "peers-1")


def _upgrade_in_place(house: House, link: Link) -> float:
    return house.restart(house.gateway(link), "--all")


# --- the portal's and the relay's ---


def _revoke_access(house: House, _link: Link) -> float:
    moment = time.time()
    house.revoke(f"client-1:{RESOURCE_NAME}")
    return moment


def _revoke_token(house: House, _link: Link) -> float:
    moment = time.time()
    house.revoke("client-1")
    return moment


def _permit_again(house: House, _link: Link) -> None:
    house.permit_again()


def _expire(house: House, link: Link) -> float:
    """Expiry is at a full second. Wait for the ending, and take the second that it fell into."""
    ending = house.wait_for_ending(house.gateway(link), link, LIFETIME_S + 5)
    return math.floor(unix(ending.ended_at)) if ending is not None else time.time()


def _portal_down(house: House, _link: Link) -> float:
    assert house.portal.process is not None
    house.portal.process.kill()
    house.portal.process.wait()
    moment = time.time()
    house.client.ask("stop", {"reason": "signed_out"})
    return moment


def _portal_returns(house: House, _link: Link) -> None:
    house.portal = house.portal.again()
    house.start_portal()


def _all_are_joined(house: House, _link: Link) -> None:
    for gateway in house.gateways:
        gateway.wait_for("portal again", lambda gateway=gateway: not gateway.status()["problems"])  # type: ignore[misc]


def _portal_link_cut(house: House, _link: Link) -> float:
    moment = time.time()
    reset_portal_link(house.lab.client_site.nat, PORTAL_PORT)
    time.sleep(PORTAL_AWAY_S)
    mend_portal_link(house.lab.client_site.nat)
    return moment


def _kill_relay(house: House, _link: Link) -> float:
    assert house.relay.process is not None
    if not house.variant.is_relayed:
        house.wait_for_direct_path()
    moment = injection.kill(house.relay.pid)
    house.relay.process.wait()
    return moment


def _relay_returns(house: House, _link: Link) -> None:
    house.relay = house.relay.again()
    house.start_relay()


# --- the network's ---


def _cut(house: House, _link: Link) -> float:
    moment = time.time()
    house.lab.cut(house.lab.client_site)
    return moment


def _heal(house: House, _link: Link) -> None:
    house.lab.heal(house.lab.client_site)


def _cut_shortly(house: House, link: Link) -> float:
    moment = _cut(house, link)
    time.sleep(CUT_S)
    _heal(house, link)
    return moment


def _roam(house: House, _link: Link) -> float:
    house.roamed = house.roamed % 250 + 3
    moment = time.time()
    house.lab.roam(house.lab.client_site, house.roamed)
    return moment


PLAYED: Final = MappingProxyType(
    {
        "sign-out": Played(_sign_out, client_ends=True),
        "SIGINT": Played(_signal(signal.SIGINT), client_ends=True),
        "SIGTERM": Played(_signal(signal.SIGTERM), client_ends=True),
        "idle": Played(_idle, options=("--idle-after", f"{IDLE_S:g}"), waits=True),
        "second signal": Played(_second_signal, client_ends=True, releases=False),
        "exception in a PeerConnection": Played(_connection_raises),
        "exception in the EventLoop": Played(_loop_raises, client_ends=True),
        "worker SIGKILL": Played(_kill_worker, releases=False),
        "OOM kill": Played(_starve_worker, releases=False),
        "supervisor SIGKILL": Played(_kill_supervisor, client_ends=True, files_stay=True),
        "whole tree SIGKILL": Played(_kill_tree, client_ends=True, files_stay=True, releases=False),
        "SIGSTOP for 60 s": Played(_sleep, waits=True),
        "gateway upgrade": Played(_gateway_leaves, _gateway_returns, needs=Needs(gateways=2)),
        "live restart of the client's worker": Played(_restart_client_worker),
        "live restart of the gateway's worker": Played(_restart_gateway_worker),
        "gateway upgrade in place": Played(_upgrade_in_place),
        "gateway worker SIGKILL": Played(_kill_gateway_worker, settle=_gateway_worker_is_back, releases=False),
        "access revoked": Played(_revoke_access, _permit_again),
        "access expired": Played(_expire, needs=Needs(lifetime_s=LIFETIME_S), waits=True),
        "token revoked": Played(_revoke_token, _permit_again, client_ends=True),
        "portal down during sign-out": Played(_portal_down, _portal_returns, _all_are_joined, client_ends=True),
        "portal link cut": Played(_portal_link_cut, waits=True),
        "relay killed": Played(_kill_relay, _relay_returns, waits=True),
        "link cut": Played(_cut, _heal, waits=True, releases=False),
        "link cut for 5 s": Played(_cut_shortly, waits=True),
        "address changed": Played(_roam, waits=True, releases=False),
    }
)
"""By the row's name."""
