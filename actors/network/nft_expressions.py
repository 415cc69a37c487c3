"""The instructions that nf_tables rules are made of.

nf_tables is a small virtual machine. A rule is a list of expressions; each loads something into a register,
compares or transforms one, or ends the rule with a verdict. A comparison that fails leaves the rule. This
module encodes the expressions that exeunt's rules use, one function each, and below them the few idioms ("the
packet came in through that device") that rules are written with. It only makes bytes.

Registers are 4 bytes wide, numbered from 8 (NFT_REG32_00); longer values take several in a row.

Source: Linux, include/uapi/linux/netfilter/nf_tables.h; the nft(8) manual for the meaning.
"""

from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from .netlink import attribute, be32, be64, native32, nested, text

Expression = bytes
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FIRST_REGISTER = 8  # NFT_REG32_00
VERDICT_REGISTER = 0  # NFT_REG_VERDICT
INTERFACE_NAME_BYTES = 16  # IFNAMSIZ: names are compared with their padding
UDP = 17  # IANA protocol numbers
ICMP = 1
ICMPV6 = 58

_EXPR_NAME, _EXPR_DATA, _LIST_ELEM = 1, 2, 1
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2


class Family(IntEnum):
    """NFPROTO_*: which packets a table sees; INET is both IP versions."""

    INET = 1
    IPV4 = 2
    IPV6 = 10


class Verdict(IntEnum):
    """What becomes of a packet: NF_DROP, NF_ACCEPT, NFT_JUMP, NFT_RETURN."""

    DROP = 0
    ACCEPT = 1
    JUMP = -3
    RETURN = -5


class Compare(IntEnum):
    """NFT_CMP_*; the ordering ones compare as memcmp does, so only on network order."""

    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2


class Meta(IntEnum):
    """NFT_META_*: facts about a packet that are not in it."""

    INPUT_NAME = 6
    OUTPUT_NAME = 7
    FAMILY = 15
    PROTOCOL = 16


class Conntrack(IntEnum):
    """NFT_CT_*: facts about the packet's connection."""

    STATE = 0
    DIRECTION = 1
    STATUS = 2


class State(IntFlag):
    """NF_CT_STATE_BIT: where in its connection a packet stands."""

    ESTABLISHED = 2
    RELATED = 4
    NEW = 8


DESTINATION_TRANSLATED = 1 << 5  # IPS_DST_NAT, a bit of Conntrack.STATUS


def expression(name: str, *attributes: bytes) -> Expression:
    """One element of a rule's list: a name and the attributes that are its own."""
    return nested(_LIST_ELEM, text(_EXPR_NAME, name), nested(_EXPR_DATA, *attributes))


def meta(key: Meta, register: int = FIRST_REGISTER) -> Expression:
    """Load a fact about the packet."""
    return expression("meta", be32(1, register), be32(2, key))


def conntrack(key: Conntrack, register: int = FIRST_REGISTER) -> Expression:
    """Load a fact about the packet's connection, in the host's byte order."""
    return expression("ct", be32(1, register), be32(2, key))


def network_header(offset: int, size: int, register: int = FIRST_REGISTER) -> Expression:
    """Load ``size`` bytes of the IP header from ``offset``."""
    return expression("payload", be32(1, register), be32(2, 1), be32(3, offset), be32(4, size))


def transport_header(offset: int, size: int, register: int = FIRST_REGISTER) -> Expression:
    """Load ``size`` bytes of the UDP, TCP or ICMP header from ``offset``."""
    return expression("payload", be32(1, register), be32(2, 2), be32(3, offset), be32(4, size))


def compare(data: bytes, how: Compare = Compare.EQUAL, register: int = FIRST_REGISTER) -> Expression:
    """Leave the rule unless the register's beginning compares so with ``data``."""
    return expression("cmp", be32(1, register), be32(2, how), nested(3, attribute(_DATA_VALUE, data)))


def mask(bits: bytes, register: int = FIRST_REGISTER) -> Expression:
    """Clear every bit of the register that is not in ``bits``."""
    zero = bytes(len(bits))
    return expression(
        "bitwise",
        be32(1, register),
        be32(2, register),
        be32(3, len(bits)),
        nested(4, attribute(_DATA_VALUE, bits)),
        nested(5, attribute(_DATA_VALUE, zero)),
    )


def to_network_order(register: int = FIRST_REGISTER) -> Expression:
    """Turn a 32-bit register from host to network order (NFT_BYTEORDER_HTON)."""
    return expression("byteorder", be32(1, register), be32(2, register), be32(3, 1), be32(4, 4), be32(5, 4))


def random_number(modulus: int, register: int = FIRST_REGISTER) -> Expression:
    """Load a random number from 0 to ``modulus`` - 1 in host order (NFT_NG_RANDOM)."""
    return expression("numgen", be32(1, register), be32(2, modulus), be32(3, 1))


def load(data: bytes, register: int = FIRST_REGISTER) -> Expression:
    """Load a constant."""
    return expression("immediate", be32(1, register), nested(2, attribute(_DATA_VALUE, data)))


def in_set(name: str, register: int = FIRST_REGISTER, *, negate: bool = False) -> Expression:
    """Leave the rule unless the registers hold an element of the named set; with ``negate`` (NFT_LOOKUP_F_INV), if."""
    flags = (be32(5, 1),) if negate else ()
    return expression("lookup", text(1, name), be32(2, register), *flags)


def remember(name: str, timeout_ms: int, register: int = FIRST_REGISTER) -> Expression:
    """Add the register's value to a dynamic set, or renew it there (NFT_DYNSET_OP_UPDATE)."""
    return expression("dynset", text(1, name), be32(3, 1), be32(4, register), be64(6, timeout_ms))


def counter() -> Expression:
    """Count packets and bytes that come this far; `nft list ruleset` shows them."""
    return expression("counter")


def masquerade(*, random_ports: bool = False) -> Expression:
    """Translate the source to the leaving device's address.

    Ports are kept where they are free; with ``random_ports`` (NF_NAT_RANGE_PROTO_RANDOM_FULLY) every
    connection gets a fresh one.
    """
    return expression("masq", be32(1, 0x10)) if random_ports else expression("masq")


def translate_destination(address: Address) -> tuple[Expression, Expression]:
    """Send the packet to ``address``, its port kept (NFT_NAT_DNAT)."""
    family = Family.IPV4 if address.version == 4 else Family.IPV6
    return load(address.packed), expression("nat", be32(1, 1), be32(2, family), be32(3, FIRST_REGISTER))


def verdict(code: Verdict, chain: str = "") -> Expression:
    """End the rule; ``chain`` is where a JUMP goes."""
    target = (text(_VERDICT_CHAIN, chain),) if chain else ()
    decision = nested(_DATA_VERDICT, be32(_VERDICT_CODE, code), *target)
    return expression("immediate", be32(1, VERDICT_REGISTER), nested(2, decision))


def came_in_by(device: str, *, negate: bool = False) -> tuple[Expression, Expression]:
    """``iifname device``."""
    return meta(Meta.INPUT_NAME), compare(interface_name(device), _equal(negate=negate))


def leaves_by(device: str, *, negate: bool = False) -> tuple[Expression, Expression]:
    """``oifname device``."""
    return meta(Meta.OUTPUT_NAME), compare(interface_name(device), _equal(negate=negate))


def came_in_by_any(device_set: str) -> tuple[Expression, Expression]:
    """``iifname @device_set``: a set of names as `interface_name` writes them."""
    return meta(Meta.INPUT_NAME), in_set(device_set)


def leaves_by_any(device_set: str, *, negate: bool = False) -> tuple[Expression, Expression]:
    """``oifname @device_set``."""
    return meta(Meta.OUTPUT_NAME), in_set(device_set, negate=negate)


def is_family(version: int) -> tuple[Expression, Expression]:
    """``meta nfproto``: IP version 4 or 6; an INET table must ask before it reads addresses."""
    return meta(Meta.FAMILY), compare(bytes([Family.IPV4 if version == 4 else Family.IPV6]))


def is_protocol(number: int) -> tuple[Expression, Expression]:
    """``meta l4proto``: the transport protocol."""
    return meta(Meta.PROTOCOL), compare(bytes([number]))


def in_state(states: State) -> tuple[Expression, ...]:
    """``ct state``: the packet is in one of these states."""
    bits = native32(states)
    return conntrack(Conntrack.STATE), mask(bits), compare(bytes(4), Compare.NOT_EQUAL)


def is_reply() -> tuple[Expression, Expression]:
    """``ct direction reply``: the packet answers the one that began the connection (IP_CT_DIR_REPLY)."""
    return conntrack(Conntrack.DIRECTION), compare(b"\x01")


def was_redirected() -> tuple[Expression, ...]:
    """``ct status dnat``: the connection's destination was translated."""
    bits = native32(DESTINATION_TRANSLATED)
    return conntrack(Conntrack.STATUS), mask(bits), compare(bytes(4), Compare.NOT_EQUAL)


def source_address(version: int, register: int = FIRST_REGISTER) -> Expression:
    """Load the source: 4 bytes (one register) or 16 (four)."""
    return network_header(12, 4, register) if version == 4 else network_header(8, 16, register)


def destination_address(version: int, register: int = FIRST_REGISTER) -> Expression:
    """Load the destination, as `source_address`."""
    return network_header(16, 4, register) if version == 4 else network_header(24, 16, register)


def source_within(network: Network) -> tuple[Expression, ...]:
    """``ip saddr network``, with the question for the IP version before it."""
    load_source, bits = source_address(network.version), network.netmask.packed
    match = compare(network.network_address.packed)
    return (*is_family(network.version), load_source, mask(bits), match)


def by_chance(percent: float) -> tuple[Expression, ...]:
    """True for about ``percent`` of the packets that ask, to a hundredth."""
    limit = round(percent * 100).to_bytes(4, "big")
    return random_number(10_000), to_network_order(), compare(limit, Compare.LESS)


def _equal(*, negate: bool) -> Compare:
    return Compare.NOT_EQUAL if negate else Compare.EQUAL


def interface_name(device: str) -> bytes:
    """Return a device's name as the kernel compares it."""
    return device.encode().ljust(INTERFACE_NAME_BYTES, b"\0")
