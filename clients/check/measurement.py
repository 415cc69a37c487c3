"""Measuring everything at once, within a deadline: relays, NATs, path MTU, portal, clock, rights.

Whatever has not come by the deadline counts as not there. So a network that answers nothing takes as long as a slow
one, and never longer.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple

from exeunt.actors.batch.choice import choose, choose_why
from exeunt.actors.turn.codec import Address, family_of

from ..check_contract import Clock, DataPath, Measured, Nat, PathMtu, PortalReach, RelayReach
from ..relay_sockets import outbound_host
from .discovery import Behaviour, Comparison, Dependence, Discovery
from .latency import Latency
from .path_mtu import PathMtuProbe
from .portal import ask_portal
from .questions import PATIENCE_S
from .rights import examine_rights
from .situation import Place, Situation
from .sockets import RESOLVE_TIMEOUT_S, converse, reason_of, resolve, stun_over_stream, udp_socket

DEADLINE_S: Final = 3.2
"""For what talks to the network. With the start of the program, a check takes less than five seconds."""
COMPARISON_S: Final = 0.6
"""Kept of it for comparing servers that have already answered."""

assert RESOLVE_TIMEOUT_S + PATIENCE_S < DEADLINE_S - COMPARISON_S


class Probe(NamedTuple):
    """What one relay, by one transport, came to."""

    place: Place
    reach: RelayReach
    behaviour: Behaviour | None = None


async def measure(situation: Situation) -> Measured:
    """Measure all that the situation has. Never raises for what the network does."""
    ends_at = time.monotonic() + DEADLINE_S
    rights = examine_rights()
    relays, path_mtus, (portal, clock) = await asyncio.gather(
        _relays(situation.relays, ends_at),
        _path_mtus([place for place in situation.relays if place.transport == "udp"], ends_at),
        _portal(situation.portal_url, ends_at),
    )
    behaviours = [probe.behaviour for probe in relays if probe.behaviour is not None and probe.behaviour.mapped]
    return Measured(
        rights=rights,
        relays=[probe.reach for probe in relays],
        nats=[nat for nat in [await _nat(family, behaviours, ends_at) for family in (4, 6)] if nat is not None],
        public_addresses=list(dict.fromkeys(each.mapped[0] for each in behaviours if each.mapped)),
        ipv6_address=_ipv6_address(),
        path_mtus=path_mtus,
        tunnel_mtu_bytes=situation.tunnel_mtu_bytes,
        portal=portal,
        clock=clock,
        instance=situation.instance,
        data_path=DataPath(kernel=choose().name, why=choose_why()),
    )


# Relays


async def _relays(places: Sequence[Place], ends_at: float) -> list[Probe]:
    found = await asyncio.gather(*(_relay(place, ends_at - COMPARISON_S) for place in places))
    return [probe for probes in found for probe in probes]


async def _relay(place: Place, ends_at: float) -> list[Probe]:
    try:
        addresses = await resolve(place.host, place.port)
    except (OSError, TimeoutError) as error:
        reason = "its name was not looked up in time" if isinstance(error, TimeoutError) else reason_of(error)
        return [Probe(place, _reach(place, reason=reason))]
    one = _by_udp if place.transport == "udp" else _by_stream
    return list(await asyncio.gather(*(one(place, address, ends_at) for address in addresses)))


async def _by_udp(place: Place, address: Address, ends_at: float) -> Probe:
    try:
        sock, local = udp_socket(address)
    except OSError as error:
        return Probe(place, _reach(place, address, reason=reason_of(error)))
    discovery = Discovery(address, local)
    refusal: str | None = None
    latency = Latency(address)
    with contextlib.closing(sock), contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ends_at - time.monotonic()):
            refusal = await converse(sock, discovery)
            if discovery.behaviour.rtt_s is not None:
                await converse(sock, latency)
    found = discovery.behaviour
    if found.rtt_s is None:
        return Probe(place, _reach(place, address, reason=refusal or "no answer"))
    rtt_s = min(found.rtt_s, latency.rtt_s or found.rtt_s)
    return Probe(place, _reach(place, address, rtt_ms=rtt_s * 1000), found)


async def _by_stream(place: Place, address: Address, ends_at: float) -> Probe:
    try:
        async with asyncio.timeout(ends_at - time.monotonic()):
            times = await stun_over_stream(address, tls_name=place.host if place.transport == "tls" else None)
    except (OSError, TimeoutError) as error:
        return Probe(place, _reach(place, address, reason=reason_of(error)))
    return Probe(place, _reach(place, address, rtt_ms=times.rtt_s * 1000, connect_ms=times.connect_s * 1000))


def _reach(place: Place, address: Address | None = None, **how: Any) -> RelayReach:
    host = None if address is None else address[0]
    return RelayReach(relay=place.name, transport=place.transport, address=host, announced=place.announced, **how)


# What stands in between


async def _nat(family: int, behaviours: Sequence[Behaviour], ends_at: float) -> Nat | None:
    """Take the best that is known about a family: by one relay, else by comparing two."""
    of_family = [each for each in behaviours if family_of(each.server[0]) == family]
    if not of_family:
        return None
    best = max(of_family, key=lambda each: (each.mapping is not None, each.filtering is not None))
    mapping, found_by = best.mapping, "reflexion" if best.mapping is None else "rfc5780"
    if mapping is None and len({each.server[0] for each in of_family}) > 1:
        mapping = await _compared([each.server for each in of_family], ends_at)
        found_by = "comparison" if mapping else found_by
    assert best.mapped is not None
    translated = bool(best.is_translated)
    return Nat(
        family=4 if family == 4 else 6,
        name=nat_name(translated=translated, mapping=mapping, filtering=best.filtering),
        mapping=mapping,
        filtering=best.filtering,
        translated=translated,
        public_address=best.mapped[0],
        found_by=found_by,
    )


def nat_name(*, translated: bool, mapping: Dependence | None, filtering: Dependence | None) -> str:
    """Answer the name that people know a behaviour by (RFC 3489 section 5, which RFC 4787 took apart)."""
    by_filtering = {
        None: "cone",
        Dependence.ENDPOINT_INDEPENDENT: "full_cone",
        Dependence.ADDRESS_DEPENDENT: "address_restricted",
        Dependence.ADDRESS_AND_PORT_DEPENDENT: "port_restricted",
    }
    if not translated:
        open_or_not = "open" if filtering is Dependence.ENDPOINT_INDEPENDENT else "firewall"
        return "no_nat" if filtering is None else open_or_not
    if mapping is None:
        return "unknown"
    return by_filtering[filtering] if mapping is Dependence.ENDPOINT_INDEPENDENT else "symmetric"


async def _compared(servers: Sequence[Address], ends_at: float) -> Dependence | None:
    try:
        sock, local = udp_socket(servers[0])
    except OSError:
        return None
    comparison = Comparison(servers, local)
    with contextlib.closing(sock), contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ends_at - time.monotonic()):
            await converse(sock, comparison)
    return comparison.mapping


def _ipv6_address() -> str | None:
    try:
        return outbound_host(socket.AF_INET6)
    except OSError:
        return None


# The path's MTU


async def _path_mtus(places: Sequence[Place], ends_at: float) -> list[PathMtu]:
    """Measure towards every relay, and keep the first result of each family."""
    found = await asyncio.gather(*(_path_mtu(place, ends_at) for place in places))
    first: dict[int, PathMtu] = {}
    for each in (mtu for mtus in found for mtu in mtus):
        first.setdefault(each.family, each)
    return list(first.values())


async def _path_mtu(place: Place, ends_at: float) -> list[PathMtu]:
    try:
        addresses = await resolve(place.host, place.port)
    except (OSError, TimeoutError):
        return []
    packets_bytes = await asyncio.gather(*(_probed(address, ends_at) for address in addresses))
    return [
        PathMtu(relay=place.name, family=4 if family_of(address[0]) == 4 else 6, packet_bytes=packet_bytes)
        for address, packet_bytes in zip(addresses, packets_bytes, strict=True)
        if packet_bytes is not None
    ]


async def _probed(server: Address, ends_at: float) -> int | None:
    try:
        sock, _ = udp_socket(server, dont_fragment=True)
    except OSError:
        return None
    probe = PathMtuProbe(server)
    with contextlib.closing(sock), contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ends_at - time.monotonic()):
            await converse(sock, probe)
    return probe.packet_bytes


# The portal


async def _portal(url: str | None, ends_at: float) -> tuple[PortalReach | None, Clock | None]:
    if url is None:
        return None, None
    asking: Coroutine[Any, Any, tuple[PortalReach, Clock | None]] = ask_portal(url)
    try:
        return await asyncio.wait_for(asking, ends_at - time.monotonic())
    except TimeoutError:
        return PortalReach(url=url, reason="no answer"), None
