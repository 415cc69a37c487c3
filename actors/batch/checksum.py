"""The internet checksum (RFC 1071), by the identity that makes it cheap in Python.

A one's complement sum of 16-bit words is the remainder modulo 65,535 of all the bytes read as one big number, since
65,536 leaves 1. One division by a machine word of a number of any length runs in C. Zero and 65,535 are the same sum.

A *residue* here is such a remainder; residues of parts add up, if each part but the last has an even length.
"""

from __future__ import annotations

from typing import Final

MODULUS: Final = 0xFFFF


def residue(data: memoryview | bytes | bytearray) -> int:
    """Return the bytes' sum; a missing last byte counts as zero."""
    number = int.from_bytes(data, "big")
    return (number << 8) % MODULUS if len(data) & 1 else number % MODULUS


def ip_checksum(total: int) -> int:
    """Return what completes an IPv4 header with this sum (its own field as zero), in the form that routers write."""
    return -total % MODULUS


def transport_checksum(total: int) -> int:
    """Return what completes a segment or datagram with this sum: never 0, which in UDP means that there is none."""
    return MODULUS - total % MODULUS


def pseudo_sum(total: int) -> int:
    """Return what stands in the field of a checksum to be completed: a sum as adding with carry leaves it."""
    return (total - 1) % MODULUS + 1
