"""Candidates: transport addresses at which a host might be reached (RFC 8445 section 5.1, RFC 8839 section 5.1).

A candidate is told to the peer as one line of text:

    FOUNDATION 1 udp PRIORITY ADDRESS PORT typ host|srflx|prflx|relay [raddr ADDRESS rport PORT]

The peer's line comes from the network. Whatever is not understood in full is refused, names are never resolved
(a candidate must not make us ask a DNS server), and only component 1 over UDP exists here.
"""

import hashlib
import ipaddress
from functools import lru_cache
from typing import cast, get_args

import msgspec

from .agent import Address, CandidateType

TYPE_PREFERENCE: dict[CandidateType, int] = {"host": 126, "prflx": 110, "srflx": 100, "relay": 0}
"""RFC 8445 section 5.1.2.2."""
COMPONENT = 1
MAX_LINE_LENGTH = 512
MAX_PRIORITY = 2**31 - 1

_UNTOLD_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # RFC 6598
        "127.0.0.0/8",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


class MalformedCandidate(ValueError):
    """A candidate line that is not understood, or names an address that nobody can be reached at."""


class Candidate(msgspec.Struct, frozen=True):
    """One candidate. `address` is canonical; `related` is the base of a reflexive or relayed one, for people only."""

    foundation: str
    priority: int
    address: Address
    type: CandidateType
    related: Address | None = None

    def to_sdp(self) -> str:
        """Return the line that the peer is told (RFC 8839 section 5.1)."""
        host, port = self.address
        line = f"{self.foundation} {COMPONENT} udp {self.priority} {host} {port} typ {self.type}"
        if self.related is not None:
            line += f" raddr {self.related[0]} rport {self.related[1]}"
        return line


def priority(candidate_type: CandidateType, local_preference: int = 65535) -> int:
    """2^24 type preference + 2^8 local preference + 256 - component (RFC 8445 section 5.1.2.1)."""
    return (TYPE_PREFERENCE[candidate_type] << 24) + (local_preference << 8) + 256 - COMPONENT


def pair_priority(controlling: int, controlled: int) -> int:
    """2^32 MIN(G,D) + 2 MAX(G,D) + (G>D ? 1 : 0) (RFC 8445 section 6.1.2.3). The same number on both sides."""
    return (min(controlling, controlled) << 32) + 2 * max(controlling, controlled) + (controlling > controlled)


def foundation(candidate_type: CandidateType, base_host: str, server: str = "") -> str:
    """Equal for candidates of one type, base and server (RFC 8445 section 5.1.1.3). A label, not a secret."""
    label = f"{candidate_type}|{base_host}|{server}".encode()
    return hashlib.blake2s(label, digest_size=8).hexdigest()


def parse_candidate(line: str) -> Candidate:
    """Read the line that a peer told us. Raises MalformedCandidate."""
    if len(line) > MAX_LINE_LENGTH or not line.isascii():
        raise MalformedCandidate("too long or not ASCII")
    words = line.strip().removeprefix("a=").removeprefix("candidate:").split()
    if len(words) < 8 or words[6] != "typ":
        raise MalformedCandidate("too few words")
    if words[1] != str(COMPONENT) or words[2].lower() != "udp":
        raise MalformedCandidate("only component 1 over UDP is supported")
    if words[7] not in get_args(CandidateType):
        raise MalformedCandidate("unknown candidate type")
    if len(words[0]) > 32:  # RFC 8839 section 5.1
        raise MalformedCandidate("foundation too long")
    return Candidate(
        foundation=words[0],
        priority=_number(words[3], MAX_PRIORITY),
        address=(_reachable_host(words[4]), _number(words[5], 65535)),
        type=cast("CandidateType", words[7]),
    )


def _number(word: str, largest: int) -> int:
    if not word.isdigit() or len(word) > 10 or not 1 <= int(word) <= largest:
        raise MalformedCandidate("a number is out of range")
    return int(word)


def _reachable_host(word: str) -> str:
    try:
        address = ipaddress.ip_address(word)
    except ValueError:
        raise MalformedCandidate("not an IP address") from None
    mapped = isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped)
    if mapped or address.is_multicast or address.is_unspecified or word == "255.255.255.255":
        raise MalformedCandidate("not an address of one host")
    return str(address)


@lru_cache(maxsize=1024)
def ip_version(host: str) -> int:
    """Return 4 or 6."""
    return ipaddress.ip_address(host).version


@lru_cache(maxsize=1024)
def is_private(host: str) -> bool:
    """Whether an address means something only inside one site: a relay elsewhere cannot reach it."""
    address = ipaddress.ip_address(host)
    return any(address in network for network in _UNTOLD_NETWORKS)


def can_pair(local: Candidate, remote: Candidate) -> bool:
    """Whether a check between the two can work at all.

    The same address family (RFC 8445 section 6.1.2.2), and no relayed candidate of a public relay with a private
    address of the peer: it cannot arrive, it would tell the relay about the peer's network, and some relays drop the
    whole allocation when the kernel answers "network unreachable".
    """
    if ip_version(local.address[0]) != ip_version(remote.address[0]):
        return False
    if local.type == "relay" and is_private(remote.address[0]):
        return is_private(local.address[0])
    return True
