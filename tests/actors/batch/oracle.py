"""What a kernel must do, written once more: slowly, from the RFCs, one packet and one word at a time."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from exeunt.actors.wireguard.timing import REPLAY_WINDOW_PACKETS

VNET = struct.Struct("=BBHHHH")
LONE = bytes(10)


def ones_complement(data: bytes) -> int:
    """RFC 1071, with the carry added at every step."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(addresses: bytes, protocol: int, length: int) -> bytes:
    return addresses + struct.pack("!II", length, protocol)


def transport_checksum(addresses: bytes, protocol: int, segment: bytes) -> int:
    """Of a segment whose own field is zero; 0 is sent as 0xFFFF (RFC 768; for TCP it is the same number)."""
    return (~ones_complement(pseudo(addresses, protocol, len(segment)) + segment) & 0xFFFF) or 0xFFFF


@dataclass(frozen=True)
class Ip:
    """An IP packet to be made; `write` completes it."""

    version: int = 4
    source: bytes = bytes([10, 0, 0, 1])
    destination: bytes = bytes([10, 0, 0, 2])
    traffic_class: int = 0
    ttl: int = 64
    identification: int = 1
    fragment: int = 0x4000
    """Flags and offset: DF."""
    options: bytes = b""
    """IPv4's, or IPv6's extension headers, the first of them of type `extension`."""
    extension: int = 60
    flow_label: int = 0

    def addresses(self) -> bytes:
        return self.source + self.destination

    def write(self, protocol: int, payload: bytes, total: int | None = None) -> bytes:
        if self.version == 4:
            length = 20 + len(self.options)
            head = struct.pack(
                "!BBHHHBBH",
                0x40 | length // 4,
                self.traffic_class,
                length + len(payload) if total is None else total,
                self.identification,
                self.fragment,
                self.ttl,
                protocol,
                0,
            )
            head += self.addresses() + self.options
            head = head[:10] + (~ones_complement(head) & 0xFFFF).to_bytes(2, "big") + head[12:]
            return head + payload
        first = 6 << 28 | self.traffic_class << 20 | self.flow_label
        following = self.extension if self.options else protocol
        body = self.options + payload
        return struct.pack("!IHBB", first, len(body), following, self.ttl) + self.addresses() + body


SIX = Ip(version=6, source=bytes(15) + b"\x01", destination=bytes(15) + b"\x02")


@dataclass(frozen=True)
class Tcp:
    """A TCP segment."""

    ip: Ip = field(default_factory=Ip)
    ports: tuple[int, int] = (1000, 80)
    sequence: int = 1
    acknowledged: int = 7
    flags: int = 0x10
    reserved: int = 0
    window: int = 500
    urgent: int = 0
    options: bytes = b""
    payload: bytes = b""
    damage: int = 0
    """Added to the checksum."""

    def write(self) -> bytes:
        head = struct.pack(
            "!HHIIBBHHH",
            *self.ports,
            self.sequence & 0xFFFFFFFF,
            self.acknowledged,
            (20 + len(self.options)) // 4 << 4 | self.reserved,
            self.flags,
            self.window,
            0,
            self.urgent,
        )
        segment = head + self.options + self.payload
        checksum = transport_checksum(self.ip.addresses(), 6, segment) + self.damage & 0xFFFF
        return self.ip.write(6, segment[:16] + checksum.to_bytes(2, "big") + segment[18:])

    def header_end(self) -> int:
        return (20 if self.ip.version == 4 else 40) + len(self.ip.options) + 20 + len(self.options)


@dataclass(frozen=True)
class Udp:
    """A UDP datagram."""

    ip: Ip = field(default_factory=Ip)
    ports: tuple[int, int] = (1000, 53)
    payload: bytes = b""
    damage: int = 0
    without_checksum: bool = False

    def write(self) -> bytes:
        segment = struct.pack("!HHHH", *self.ports, 8 + len(self.payload), 0) + self.payload
        checksum = transport_checksum(self.ip.addresses(), 17, segment) + self.damage & 0xFFFF
        if self.without_checksum:
            checksum = 0
        return self.ip.write(17, segment[:6] + checksum.to_bytes(2, "big") + segment[8:])

    def header_end(self) -> int:
        return (20 if self.ip.version == 4 else 40) + len(self.ip.options) + 8


Whole = Tcp | Udp


def frame_of(whole: Whole, gso_size: int, *, ecn: bool = False) -> bytes:
    """The frame a kernel would give for all this payload."""
    header_end = whole.header_end()
    if isinstance(whole, Udp):
        gso_type, transport, offset = 5, header_end - 8, 6
    else:
        gso_type, transport, offset = 1 if whole.ip.version == 4 else 4, header_end - 20 - len(whole.options), 16
    packet = bytearray(whole.write())
    protocol = 17 if isinstance(whole, Udp) else 6
    field = ones_complement(pseudo(whole.ip.addresses(), protocol, len(packet) - transport))
    packet[transport + offset : transport + offset + 2] = field.to_bytes(2, "big")
    return VNET.pack(1, gso_type | 0x80 * ecn, header_end, gso_size, transport, offset) + packet


def packets_of(whole: Whole, gso_size: int) -> list[bytes]:
    """The packets that such a frame stands for, each made from its fields."""
    pieces = [whole.payload[at : at + gso_size] for at in range(0, len(whole.payload), gso_size)] or [b""]
    packets: list[bytes] = []
    for number, piece in enumerate(pieces):
        ip = replace(whole.ip, identification=whole.ip.identification + number & 0xFFFF)
        if isinstance(whole, Udp):
            packets.append(replace(whole, ip=ip, payload=piece).write())
            continue
        flags = whole.flags
        if number > 0:
            flags &= ~0x80
        if number < len(pieces) - 1:
            flags &= ~0x09
        sequence = whole.sequence + number * gso_size
        packets.append(replace(whole, ip=ip, payload=piece, flags=flags, sequence=sequence).write())
    return packets


def sealed(key: bytes, index: int, counter: int, packet: bytes, mtu: int) -> bytes:
    """A transport message (WireGuard paper 5.4.6)."""
    padded = packet
    while len(padded) % 16 and len(padded) < mtu:
        padded += b"\0"
    nonce = struct.pack("<IQ", 0, counter)
    return struct.pack("<IIQ", 4, index, counter) + ChaCha20Poly1305(key).encrypt(nonce, padded, None)


def cut_to_size(plaintext: bytes) -> bytes | None:
    """The IP packet in these bytes."""
    if len(plaintext) < 20 or plaintext[0] >> 4 not in {4, 6}:
        return None
    if plaintext[0] >> 4 == 4:
        header, size = (plaintext[0] & 15) * 4, int.from_bytes(plaintext[2:4], "big")
    else:
        header, size = 40, 40 + int.from_bytes(plaintext[4:6], "big")
    if len(plaintext) < header or header < 20 or not header <= size <= len(plaintext):
        return None
    return plaintext[:size]


# Merging.


@dataclass
class Read:
    """A packet as the merging rules see it."""

    packet: bytes
    flow: tuple[object, ...] | None
    """None: not told."""
    mergeable: bool = False
    protocol: int = 0
    transport: int = 0
    header_end: int = 0

    def payload(self) -> bytes:
        return self.packet[self.header_end :]

    def sequence(self) -> int:
        return int.from_bytes(self.packet[self.transport + 4 : self.transport + 8], "big")

    def pushes(self) -> bool:
        return self.protocol == 6 and bool(self.packet[self.transport + 13] & 8)

    def fixed(self) -> bytes:
        """The header with zeros where splitting would write."""
        header = bytearray(self.packet[: self.header_end])
        four, six = ((2, 6), (10, 12)), ((4, 6),)
        for begin, end in four if header[0] >> 4 == 4 else six:
            header[begin:end] = bytes(end - begin)
        t = self.transport
        if self.protocol == 17:
            header[t + 4 : t + 8] = bytes(4)
        else:
            header[t + 4 : t + 8] = bytes(4)
            header[t + 16 : t + 18] = bytes(2)
            header[t + 13] &= 0xFF ^ 8
        return bytes(header)


def read(packet: bytes) -> Read:
    version = packet[0] >> 4
    if version == 4:
        transport, protocol, addresses = (packet[0] & 15) * 4, packet[9], packet[12:20]
        fragment = int.from_bytes(packet[6:8], "big")
        if fragment & 0x3FFF:
            return Read(packet, None)
        simple = transport == 20 and not fragment & 0x8000 and ones_complement(packet[:20]) == 0xFFFF
    else:
        transport, protocol, addresses, simple = 40, packet[6], packet[8:40], True
    if protocol not in {6, 17} or len(packet) < transport + 4:
        return Read(packet, None)
    flow = (version, protocol, addresses, packet[transport : transport + 4])
    segment = packet[transport:]
    alone = Read(packet, flow)
    if not simple or ones_complement(pseudo(addresses, protocol, len(segment)) + segment) != 0xFFFF:
        return alone
    if protocol == 17:
        if len(segment) <= 8 or int.from_bytes(segment[4:6], "big") != len(segment) or segment[6:8] == b"\0\0":
            return alone
        return Read(packet, flow, True, protocol, transport, transport + 8)
    if len(segment) <= 20 or segment[12] & 15 or segment[13] not in {0x10, 0x18}:
        return alone
    header_end = transport + (segment[12] >> 4) * 4
    if not transport + 20 <= header_end < len(packet):
        return alone
    return Read(packet, flow, True, protocol, transport, header_end)


def frames_of(packets: list[bytes]) -> list[tuple[bytes, int]]:
    """The frames that these packets are merged to, with how many are in each."""
    groups: list[list[Read]] = []
    newest: dict[tuple[object, ...], list[Read]] = {}
    for packet in map(read, packets):
        if packet.flow is None:
            newest = {}
            groups.append([packet])
            continue
        group = newest.get(packet.flow)
        if group is not None and may_follow(group, packet):
            group.append(packet)
        else:
            newest[packet.flow] = [packet]
            groups.append(newest[packet.flow])
    return [(merged(group), len(group)) for group in groups]


def may_follow(group: list[Read], packet: Read) -> bool:
    first, last = group[0], group[-1]
    size = len(first.payload())
    if not (first.mergeable and packet.mergeable) or first.fixed() != packet.fixed():
        return False
    if len(last.payload()) != size or len(packet.payload()) > size or last.pushes():
        return False
    if first.header_end + sum(len(each.payload()) for each in [*group, packet]) > 65_535:
        return False
    if first.protocol == 17:
        return len(group) < 64
    return packet.sequence() == (last.sequence() + size) % 2**32


def merged(group: list[Read]) -> bytes:
    first = group[0]
    if len(group) == 1:
        return LONE + first.packet
    payload = b"".join(each.payload() for each in group)
    header = bytearray(first.packet[: first.header_end])
    transport, protocol = first.transport, first.protocol
    length = len(header) - transport + len(payload)
    if header[0] >> 4 == 4:
        header[2:4] = (transport + length).to_bytes(2, "big")
        header[10:12] = bytes(2)
        header[10:12] = (~ones_complement(bytes(header[:20])) & 0xFFFF).to_bytes(2, "big")
        addresses = bytes(header[12:20])
    else:
        header[4:6] = length.to_bytes(2, "big")
        addresses = bytes(header[8:40])
    if protocol == 17:
        gso_type, offset = 5, 6
        header[transport + 4 : transport + 6] = length.to_bytes(2, "big")
    else:
        gso_type, offset = 1 if header[0] >> 4 == 4 else 4, 16
        header[transport + 13] |= 8 * group[-1].pushes()
    field = ones_complement(pseudo(addresses, protocol, length))
    header[transport + offset : transport + offset + 2] = field.to_bytes(2, "big")
    vnet = VNET.pack(1, gso_type, len(header), len(first.payload()), transport, offset)
    return vnet + bytes(header) + payload


# Opening.


@dataclass
class Opener:
    """One key's receiver, which remembers everything."""

    key: bytes
    seen: set[int] = field(default_factory=set[int])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def open(self, datagrams: list[bytes], limit: int, *, coalesce: bool = True) -> list[tuple[bytes, int]]:
        names = ("datagrams", "octets", "keepalives", "replayed", "forged", "malformed", "over_limit")
        self.counts = dict.fromkeys(names, 0)
        packets: list[bytes] = []
        for datagram in datagrams:
            counter = int.from_bytes(datagram[8:16], "little")
            if counter >= limit:
                self.counts["over_limit"] += 1
            elif counter in self.seen or counter <= max(self.seen, default=-1) - REPLAY_WINDOW_PACKETS:
                self.counts["replayed"] += 1
            else:
                try:
                    nonce = struct.pack("<IQ", 0, counter)
                    plaintext = ChaCha20Poly1305(self.key).decrypt(nonce, datagram[16:], None)
                except InvalidTag:
                    self.counts["forged"] += 1
                    continue
                self.seen.add(counter)
                self.counts["datagrams"] += 1
                self.counts["octets"] += len(datagram)
                packet = cut_to_size(plaintext)
                if not plaintext:
                    self.counts["keepalives"] += 1
                elif packet is None:
                    self.counts["malformed"] += 1
                else:
                    packets.append(packet)
        return frames_of(packets) if coalesce else [(LONE + packet, 1) for packet in packets]
