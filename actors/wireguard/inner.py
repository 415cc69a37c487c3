"""The packet inside: padded when sealed, cut to its true length when opened.

Padding hides lengths from whoever watches the wire, and the IP header says where the packet really ends (WireGuard
paper, section 5.4.6).
"""

from .timing import PADDING_BYTES

_IPV4_HEADER_BYTES = 20
_IPV6_HEADER_BYTES = 40


def pad(packet: bytes, mtu_bytes: int) -> bytes:
    """Extend a packet with zeros to a multiple of 16 bytes, but not beyond the MTU."""
    missing = -len(packet) % PADDING_BYTES
    if missing == 0:
        return packet
    return packet + bytes(max(0, min(missing, mtu_bytes - len(packet))))


def unpad(plaintext: bytes) -> bytes | None:
    """Cut decrypted bytes to the IP packet in them, or return None when there is none."""
    size = len(plaintext)
    version = plaintext[0] >> 4 if plaintext else 0
    if version == 4 and size >= _IPV4_HEADER_BYTES:
        length = int.from_bytes(plaintext[2:4], "big")
        minimum = _IPV4_HEADER_BYTES
    elif version == 6 and size >= _IPV6_HEADER_BYTES:
        length = _IPV6_HEADER_BYTES + int.from_bytes(plaintext[4:6], "big")
        minimum = _IPV6_HEADER_BYTES
    else:
        return None
    if not minimum <= length <= size:
        return None
    return plaintext[:length]
