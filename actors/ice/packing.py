"""Checks and their answers, packed by hand: what a gateway with thousands of peers does all day.

aioice's codec builds a message attribute by attribute and reads it the same way; asking and answering once costs
0.8 ms of CPU with it. The messages of a check have a fixed layout, so here they are a few bytes around a one-shot HMAC:

    request   header · USERNAME · PRIORITY · ICE-CONTROLLING or ICE-CONTROLLED · [USE-CANDIDATE] · the two below
    success   header · XOR-MAPPED-ADDRESS · the two below
              MESSAGE-INTEGRITY · FINGERPRINT

Most of it is the same each time, so the beginnings of the HMAC and what a peer asks and is answered are kept: a check
and its answer differ from those before by the transaction id and what is computed from it.

What is packed is byte for byte what aioice's codec makes of the same attributes in this order (RFC 8489 section 14).
What is read is only this layout, and only if it is authentic: everything else, a peer of another make or a forgery, is
answered with None and goes the long way, through `binding`.
"""

import hashlib
import hmac
import socket
import struct
from binascii import crc32
from functools import lru_cache
from typing import NamedTuple

from .agent import Address, Credentials
from .candidate import priority

COOKIE = 0x2112A442
_HEADER = struct.Struct("!HHI12s")
_START = struct.Struct("!HHI")
_ID_AT, _HEADER_LENGTH = _START.size, 20
_REQUEST, _SUCCESS = 0x0001, 0x0101
_PRIORITY = struct.Struct("!HHI")
_ROLE = struct.Struct("!HHQ")
_CONTROLLED, _CONTROLLING = 0x8029, 0x802A
_USE_CANDIDATE = struct.pack("!HH", 0x0025, 0)
_INTEGRITY_HEADER = struct.pack("!HH", 0x0008, 20)
_INTEGRITY_LENGTH = 24
_FINGERPRINT = struct.Struct("!HHI")
_TAIL_LENGTH = _INTEGRITY_LENGTH + _FINGERPRINT.size
_BLOCK_BYTES = 64
"""Of SHA-1."""
_FINGERPRINT_TYPE, _FINGERPRINT_XOR = 0x8028, 0x5354554E
_MAPPED = struct.Struct("!HHBBH")
_MAPPED_TYPE = 0x0020
_PRFLX_PRIORITY = _PRIORITY.pack(0x0024, 4, priority("prflx"))


class Role(NamedTuple):
    """The role attribute of a check: which side decides, and the number that settles a conflict."""

    controlling: bool
    tie_breaker: int


class Request(NamedTuple):
    """An authentic check of the peer."""

    transaction_id: bytes
    priority: int
    role: Role
    nominates: bool


class _Key:
    """HMAC-SHA1 (RFC 2104) under one key, begun in advance: a third of what `hmac.digest` costs."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            key = hashlib.sha1(key, usedforsecurity=False).digest()
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in block), usedforsecurity=False)
        self._outer = hashlib.sha1(bytes(byte ^ 0x5C for byte in block), usedforsecurity=False)

    def digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


class Packing:
    """Packs and reads the checks of one session, with its credentials (RFC 8445 section 7.2.2)."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._keys: tuple[_Key, _Key] | None = None
        """Ours and the peer's, once one is needed: they have 250 bytes for each half."""
        self._asked: tuple[bytes, Request] | None = None
        """The attributes of the last request before its integrity, and what they said."""
        self._answered: tuple[Address, bytes] | None = None
        """Whom the last answer over IPv4 went to, and its attributes before its integrity."""
        self._our_username = _username(f"{credentials.remote_username}:{credentials.local_username}")
        self._their_username = _username(f"{credentials.local_username}:{credentials.remote_username}")

    @property
    def asked(self) -> tuple[bytes, bool] | None:
        """The attributes before the integrity of the last request that was read, and whether it nominates."""
        return None if self._asked is None else (self._asked[0], self._asked[1].nominates)

    def forget(self) -> None:
        """Keep nothing that can be made again."""
        self._asked = self._answered = self._keys = None

    @property
    def _local_key(self) -> _Key:
        return (self._keys or self._begin_keys())[0]

    @property
    def _remote_key(self) -> _Key:
        return (self._keys or self._begin_keys())[1]

    def _begin_keys(self) -> tuple[_Key, _Key]:
        local, remote = (self._credentials.local_password, self._credentials.remote_password)
        self._keys = keys = _Key(local.encode()), _Key(remote.encode())
        return keys

    def request(self, transaction_id: bytes, role: Role, *, nominate: bool) -> bytes:
        """Pack a connectivity or consent check."""
        body = (
            self._our_username
            + _PRFLX_PRIORITY
            + _ROLE.pack(_CONTROLLING if role.controlling else _CONTROLLED, 8, role.tie_breaker)
        )
        if nominate and role.controlling:
            body += _USE_CANDIDATE
        return _sign(_REQUEST, transaction_id, body, self._remote_key)

    def success(self, transaction_id: bytes, source: Address) -> bytes:
        """Pack the answer to an authenticated check that came from `source` (RFC 8445 section 7.3.1.2)."""
        if self._answered is not None and self._answered[0] == source:
            return _sign(_SUCCESS, transaction_id, self._answered[1], self._local_key)
        host = _packed_host(source[0])
        pad = _HEADER.pack(0, 0, COOKIE, transaction_id)[4 : 4 + len(host)]
        mapped = int.from_bytes(host, "big") ^ int.from_bytes(pad, "big")
        family = 1 if len(host) == 4 else 2
        body = _MAPPED.pack(_MAPPED_TYPE, 4 + len(host), 0, family, source[1] ^ COOKIE >> 16)
        body += mapped.to_bytes(len(host), "big")
        if family == 1:  # of IPv6 the transaction id is part
            self._answered = source, body
        return _sign(_SUCCESS, transaction_id, body, self._local_key)

    def read_request(self, datagram: bytes) -> Request | None:
        """Read an authentic check of the peer; None: something else, or a forgery."""
        if self._asked is not None and datagram[_HEADER_LENGTH:-_TAIL_LENGTH] == self._asked[0]:
            transaction_id = _verify(_REQUEST, datagram, len(datagram) - _TAIL_LENGTH, self._local_key)
            if transaction_id is None:
                return None
            _, told, role, nominates = self._asked[1]
            return Request(transaction_id, told, role, nominates)
        username = self._their_username
        role_at = _HEADER_LENGTH + len(username) + _PRIORITY.size
        end = len(datagram) - _INTEGRITY_LENGTH - _FINGERPRINT.size
        nominates = end == role_at + _ROLE.size + len(_USE_CANDIDATE)
        if not nominates and end != role_at + _ROLE.size:
            return None
        if datagram[_HEADER_LENGTH : _HEADER_LENGTH + len(username)] != username:
            return None
        priority_type, priority_length, priority_value = _PRIORITY.unpack_from(datagram, role_at - _PRIORITY.size)
        role_type, role_length, tie_breaker = _ROLE.unpack_from(datagram, role_at)
        if (priority_type, priority_length, role_length) != (0x0024, 4, 8):
            return None
        if role_type not in (_CONTROLLED, _CONTROLLING):
            return None
        if nominates and datagram[end - len(_USE_CANDIDATE) : end] != _USE_CANDIDATE:
            return None
        transaction_id = _verify(_REQUEST, datagram, end, self._local_key)
        if transaction_id is None:
            return None
        request = Request(transaction_id, priority_value, Role(role_type == _CONTROLLING, tie_breaker), nominates)
        self._asked = datagram[_HEADER_LENGTH:end], request
        return request

    def read_success(self, datagram: bytes) -> tuple[bytes, Address] | None:
        """Read the transaction id and mapped address of an authentic answer; None: something else, or a forgery."""
        end = len(datagram) - _INTEGRITY_LENGTH - _FINGERPRINT.size
        length = end - _HEADER_LENGTH - _MAPPED.size
        if length not in (4, 16):
            return None
        mapped_type, mapped_length, _, family, port = _MAPPED.unpack_from(datagram, _HEADER_LENGTH)
        if (mapped_type, mapped_length) != (_MAPPED_TYPE, 4 + length) or family != (1 if length == 4 else 2):
            return None
        transaction_id = _verify(_SUCCESS, datagram, end, self._remote_key)
        if transaction_id is None:
            return None
        mapped = int.from_bytes(datagram[end - length : end], "big")
        host = (mapped ^ int.from_bytes(datagram[4 : 4 + length], "big")).to_bytes(length, "big")
        return transaction_id, (_host(host), port ^ COOKIE >> 16)


def _username(name: str) -> bytes:
    value = name.encode()
    return struct.pack("!HH", 0x0006, len(value)) + value + bytes(-len(value) % 4)


def _sign(kind: int, transaction_id: bytes, body: bytes, key: _Key) -> bytes:
    """Append MESSAGE-INTEGRITY and FINGERPRINT; each covers a header that already counts it (RFC 8489 14.5, 14.7)."""
    covered, whole = _beginnings(kind, len(body))
    signed = transaction_id + body
    message = whole + signed + _INTEGRITY_HEADER + key.digest(covered + signed)
    return message + _FINGERPRINT.pack(_FINGERPRINT_TYPE, 4, crc32(message) ^ _FINGERPRINT_XOR)


def _verify(kind: int, datagram: bytes, end: int, key: _Key) -> bytes | None:
    """Return the transaction id if header, integrity and fingerprint are right; the attributes end at `end`."""
    covered, whole = _beginnings(kind, end - _HEADER_LENGTH)
    mac_at = end + len(_INTEGRITY_HEADER)
    if datagram[:_ID_AT] != whole or datagram[end:mac_at] != _INTEGRITY_HEADER:
        return None
    checked = len(datagram) - _FINGERPRINT.size
    fingerprint = _FINGERPRINT.pack(_FINGERPRINT_TYPE, 4, crc32(datagram[:checked]) ^ _FINGERPRINT_XOR)
    if datagram[checked:] != fingerprint:
        return None
    mac = key.digest(covered + datagram[_ID_AT:end])
    return datagram[_ID_AT:_HEADER_LENGTH] if hmac.compare_digest(mac, datagram[mac_at:checked]) else None


@lru_cache(maxsize=256)
def _beginnings(kind: int, length: int) -> tuple[bytes, bytes]:
    """Return what stands before the transaction id of a message with so many bytes of attributes: as its integrity
    covers it, and as it is sent.
    """
    length += _INTEGRITY_LENGTH
    covered, whole = (_START.pack(kind, counted, COOKIE) for counted in (length, length + _FINGERPRINT.size))
    return covered, whole


@lru_cache(maxsize=4096)
def _packed_host(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


@lru_cache(maxsize=4096)
def _host(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
