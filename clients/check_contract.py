"""The document of `exeunt check`: what was measured, and what that means. A part of `exeunt.clients.contract`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Verdict = Literal["ok", "warning", "problem", "unknown"]
Dependence = Annotated[str, Meta(examples=["endpoint_independent", "address_dependent", "address_and_port_dependent"])]
NatName = Annotated[
    str,
    Meta(
        examples=[
            "open",
            "firewall",
            "no_nat",
            "full_cone",
            "address_restricted",
            "port_restricted",
            "cone",
            "symmetric",
            "unknown",
        ]
    ),
]


class Finding(Struct, frozen=True, kw_only=True):
    """What one examination found."""

    examination: Annotated[
        str, Meta(examples=["udp", "nat", "ipv6", "relays", "mtu", "portal", "clock", "tun", "data_path"])
    ]
    verdict: Verdict
    sentence: str
    hint: str | None = None
    """What to do about it."""


class RelayReach(Struct, frozen=True, kw_only=True):
    """One relay by one transport and address family."""

    relay: str
    """HOST:PORT as it was announced or given."""
    transport: Literal["udp", "tcp", "tls"]
    address: str | None = None
    """Where that is; null where its name has no address."""
    announced: bool = True
    """False: nobody said that it is served there. It was tried because networks that block UDP make one need it."""
    rtt_ms: float | None = None
    """Of a STUN Binding request, without the time to connect; null where there was no answer."""
    connect_ms: float | None = None
    """For TCP and TLS: until a request could be sent."""
    reason: str | None = None
    """Why there was no answer."""


class Nat(Struct, frozen=True, kw_only=True):
    """What stands between this host and a relay, for one address family (RFC 4787, RFC 5780)."""

    family: Literal[4, 6]
    name: NatName
    mapping: Dependence | None = None
    filtering: Dependence | None = None
    translated: bool
    """Whether the relay sees another address than this host has."""
    public_address: str
    found_by: Annotated[str, Meta(examples=["rfc5780", "comparison", "reflexion"])]
    """``rfc5780``: by a relay with two addresses; ``comparison``: by two relays; ``reflexion``: by one."""


class PathMtu(Struct, frozen=True, kw_only=True):
    """The longest packet that reached a relay without being fragmented; the way back was not measured."""

    relay: str
    family: Literal[4, 6]
    packet_bytes: int
    """With its IP header. The longest that was tried is 1500."""


class Clock(Struct, frozen=True, kw_only=True):
    """This host's clock against another one."""

    source: str
    offset_ms: float
    """Positive: ours is ahead."""
    error_ms: float
    """Either way: HTTP's Date has whole seconds."""


class PortalReach(Struct, frozen=True, kw_only=True):
    """The portal's health check."""

    url: str
    connect_ms: float | None = None
    answer_ms: float | None = None
    """From the request to the answer; null where there was none."""
    reason: str | None = None
    """Why not."""


class Rights(Struct, frozen=True, kw_only=True):
    """What this user may do on this host; null: all is well, else why not."""

    tun: str | None = None
    net_admin: str | None = None
    nftables: str | None = None


class DataPath(Struct, frozen=True, kw_only=True):
    """What seals and opens packets in this installation."""

    kernel: Annotated[str, Meta(examples=["native", "pure"])]
    why: str
    """The library that does the native one's cipher, or why there is no native one."""


class Measured(Struct, frozen=True, kw_only=True):
    """All that was measured."""

    rights: Rights
    relays: list[RelayReach] = []
    nats: list[Nat] = []
    public_addresses: list[str] = []
    """As relays see this host."""
    ipv6_address: str | None = None
    """What this host would use to reach the IPv6 Internet."""
    path_mtus: list[PathMtu] = []
    tunnel_mtu_bytes: int = 1400
    """As configured, of the packets in the tunnel."""
    portal: PortalReach | None = None
    """Null: none is configured."""
    clock: Clock | None = None
    instance: str | None = None
    """The running program that told the relays."""
    data_path: DataPath | None = None


class Check(Struct, frozen=True, kw_only=True):
    """An examination of this network and host."""

    verdict: Verdict
    """The worst of all."""
    findings: list[Finding]
    measured: Measured
    duration_ms: float
