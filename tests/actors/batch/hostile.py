"""Frames and bursts of every sort: right ones, some that are nearly right, and some that are nothing of the kind.

Whatever makes them random is passed in. What is right is common enough that packets merge, and that what is wrong is
met in the middle of a run and not only at its beginning.
"""

from __future__ import annotations

import random
import struct
from array import array
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

TCP: Final = 6
UDP: Final = 17
ACK: Final = 0x10
ODD_FLAGS: Final = (0x18, 0x18, 0x11, 0x19, 0x90, 0x50, 0x12, 0x04, 0x30, 0x00)
GSO_TYPES: Final = (0, 1, 4, 5)
REMOTE_INDEX: Final = 0x01020304
LIMIT: Final = 2**64 - 2**13 - 1


class Burst(NamedTuple):
    """What arrived."""

    buffer: bytes
    spans: array[int]
    limit: int


class Flow:
    """Packets of one flow, most of which follow one another."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.version = rng.choice((4, 4, 6))
        self.protocol = rng.choice((TCP, TCP, UDP))
        self.options = rng.randbytes(rng.choice((0, 0, 12, 40))) if self.protocol == TCP else b""
        self.addresses = bytes(range(8 if self.version == 4 else 32))
        self.ports = rng.randrange(4)
        self.payload = rng.choice((1, 2, 7, 64, 100, 1_201))
        self.sequence = rng.choice((0, 2**32 - 50, rng.getrandbits(32)))
        self.traffic_class, self.hops, self.window = 0, 64, 500

    def packet(self, size: int | None = None, flags: int = ACK, *, fragment: int = 0x4000) -> bytearray:
        """The next one, right in all that can be right."""
        payload = self.rng.randbytes(self.payload if size is None else size)
        ports = struct.pack("!HH", 1000 + self.ports, 53)
        if self.protocol == TCP:
            offset = (20 + len(self.options)) << 2
            rest = struct.pack("!IIBBHHH", self.sequence, 77, offset, flags, self.window, 0, 0)
            self.sequence = (self.sequence + len(payload)) % 2**32
            transport = bytearray(ports + rest + self.options + payload)
        else:
            transport = bytearray(ports + struct.pack("!HH", 8 + len(payload), 0) + payload)
        at = 16 if self.protocol == TCP else 6
        pseudo = self.addresses + struct.pack("!IBBH", len(transport), 0, 0, self.protocol)
        transport[at : at + 2] = checksum(pseudo + transport).to_bytes(2, "big")
        if self.version == 4:
            size = 20 + len(transport)
            header = bytearray(
                struct.pack("!BBHHHBBH", 0x45, self.traffic_class, size, 9, fragment, self.hops, self.protocol, 0)
            )
            header += self.addresses
            header[10:12] = checksum(header).to_bytes(2, "big")
        else:
            first = 6 << 28 | self.traffic_class << 20
            header = bytearray(struct.pack("!IHBB", first, len(transport), self.protocol, self.hops) + self.addresses)
        return header + transport


def checksum(data: bytes | bytearray) -> int:
    """RFC 1071: a sum modulo 65,535 is the remainder of it all as one number."""
    return 0xFFFF - int.from_bytes(data + bytes(len(data) & 1), "big") % 0xFFFF


def hostile_packet(rng: random.Random, flow: Flow) -> bytearray:
    """Return a flow's next packet, or something odd in its place."""
    match rng.randrange(24):
        case 0:
            return flow.packet(rng.choice((0, 1, max(0, flow.payload - 1), flow.payload + 1)))
        case 1:
            return flow.packet(flags=rng.choice(ODD_FLAGS))
        case 2:
            flow.traffic_class, flow.hops, flow.window = rng.randrange(4), rng.randrange(63, 65), rng.randrange(2)
        case 3:
            flow.sequence = (flow.sequence + rng.randrange(-2, 3)) % 2**32
        case 4:
            return flow.packet(fragment=rng.choice((0, 0x2000, 0x4001, 0x8000, 0xC000)))
        case 5:
            return mutated(rng, flow.packet())
        case 6:
            return flow.packet()[: rng.randrange(80)]
        case 7:
            return bytearray(rng.randbytes(rng.randrange(70)))
        case _:
            pass
    return flow.packet()


def mutated(rng: random.Random, packet: bytearray) -> bytearray:
    """Change a byte or two, most likely in a header, where a boundary is."""
    for _ in range(rng.randrange(1, 3)):
        at = rng.randrange(min(len(packet), rng.choice((8, 80, 2000))))
        packet[at] = rng.choice((0, 1, 4, 6, 17, 20, 0x45, 0x4F, 0x60, 0x7F, 0xF0, 0xFF, packet[at] ^ 1))
    return packet


def hostile_frame(rng: random.Random) -> bytearray:
    """Return a frame such as a device gives, or none that it would."""
    flow = Flow(rng)
    payload = rng.choice((0, 1, flow.payload, rng.randrange(3_000), rng.randrange(3_000)))
    if rng.randrange(16) == 0:
        payload = rng.choice((20_000, 65_000))
    packet = flow.packet(min(payload, 65_400 - len(flow.options)), rng.choice(ODD_FLAGS))
    if rng.randrange(4) == 0:
        packet = mutated(rng, packet)
    transport = 20 if flow.version == 4 else 40
    gso_type = 5 if flow.protocol == UDP else 1 if flow.version == 4 else 4
    fields = [
        1,
        rng.choice((0, gso_type, gso_type, gso_type | 0x80)),
        transport + 20,
        rng.choice((1, 64, 536, 1_380, 65_535)),
        transport,
        16 if flow.protocol == TCP else 6,
    ]
    if rng.randrange(4) == 0:
        fields[rng.randrange(6)] = rng.choice((0, 1, 2, 3, 5, 41, 60, 127, 255))
    elif rng.randrange(8) == 0:
        fields[rng.randrange(2, 6)] = rng.choice((65_535, 65_534, len(packet), max(0, len(packet) - 2)))
    frame = bytearray(struct.pack("=BBHHHH", *fields)) + packet
    return frame[: rng.randrange(len(frame))] if rng.randrange(16) == 0 else frame


def hostile_burst(rng: random.Random, key: bytes, first_counter: int) -> Burst:
    """Return datagrams, most of them authentic under the key."""
    encrypt = ChaCha20Poly1305(key).encrypt
    flows = [Flow(rng) for _ in range(rng.choice((1, 1, 2, 4)))]
    counter = first_counter
    buffer, spans = bytearray(rng.randrange(3)), array("I")
    for _ in range(rng.choice((1, 2, 5, 8, 8, 20))):
        text = hostile_packet(rng, rng.choice(flows)) if rng.randrange(40) else bytearray()
        text += bytes(rng.choice((0, -len(text) % 16, -len(text) % 16, 3)) if text else 0)
        header = struct.pack("<IIQ", 4, REMOTE_INDEX, counter)
        datagram = bytearray(header + encrypt(bytes(4) + header[8:], bytes(text), None))
        if rng.randrange(30) == 0:
            datagram[rng.randrange(8, len(datagram))] ^= 1
        spans.extend((len(buffer), len(datagram)))
        buffer += datagram + bytes(rng.choice((0, 0, 0, 4)))
        counter = max(first_counter, counter + rng.choice((1, 1, 1, 1, 1, 1, 0, 2, 65, -3)))
    limit = rng.choice((LIMIT, LIMIT, LIMIT, max(0, counter - 2)))
    return Burst(bytes(buffer), spans, limit)
