"""STUN Binding messages as ICE uses them (RFC 8489, RFC 8445 section 7), on aioice's codec.

The messages that are frequent and have a fixed layout are packed and read by `packing`; everything else comes here.

Pure functions. Whatever a stranger can send, `read` answers with a message or with None; aioice's parser raises
struct.error and others on hostile attributes, and that ends here.

The short-term credential of a request is the *receiver's* password, and USERNAME is "receiver's fragment:sender's
fragment" (RFC 8445 section 7.2.2); the response is signed with the same password.
"""

import struct
from typing import Any

from aioice import stun

from .agent import Credentials

MAGIC_COOKIE = b"\x21\x12\xa4\x42"
HEADER_LENGTH = 20

BAD_REQUEST = (400, "Bad Request")
UNAUTHENTICATED = (401, "Unauthenticated")
ROLE_CONFLICT = (487, "Role Conflict")


def is_stun(datagram: bytes | bytearray | memoryview) -> bool:
    """Tell STUN from data by the first two bits, the magic cookie and the length (RFC 8489 section 6.3, RFC 7983).

    WireGuard's handshake messages (types 1 to 3) carry an index where the cookie would be, which may be the same, but
    two zeros where the length would be, and are longer than that. Its data messages (type 4) have other first bits.
    """
    if len(datagram) < HEADER_LENGTH or datagram[0] >= 4 or datagram[4:8] != MAGIC_COOKIE:
        return False
    return HEADER_LENGTH + (datagram[2] << 8 | datagram[3]) == len(datagram)


def read(datagram: bytes) -> stun.Message | None:
    """Parse a datagram, or return None if it is not a well-formed STUN message."""
    try:
        return stun.parse_message(datagram)
    except (ValueError, struct.error, IndexError, KeyError, TypeError, OverflowError):
        return None


def attribute(message: stun.Message, name: str) -> Any:
    """Return an attribute's value, or None."""
    return message.attributes.get(name)


def failure(request: stun.Message, error: tuple[int, str], credentials: Credentials) -> bytes:
    """Build an error response; 400 and 401 go to somebody unauthenticated and are not signed (RFC 8489 9.1.3)."""
    message = stun.Message(request.message_method, stun.Class.ERROR, request.transaction_id)
    message.attributes["ERROR-CODE"] = error
    if error in (BAD_REQUEST, UNAUTHENTICATED):
        message.add_fingerprint()
    else:
        message.add_message_integrity(credentials.local_password.encode())
    return bytes(message)


def authenticate(request: stun.Message, credentials: Credentials) -> tuple[int, str] | None:
    """Return the error to answer with, or None if the request is the peer's (RFC 8489 section 9.1.3)."""
    if request.message_method != stun.Method.BINDING:
        return BAD_REQUEST
    username = attribute(request, "USERNAME")
    if username is None or attribute(request, "MESSAGE-INTEGRITY") is None:
        return BAD_REQUEST
    if username != f"{credentials.local_username}:{credentials.remote_username}":
        return UNAUTHENTICATED
    if not request.check_message_integrity(credentials.local_password.encode()):
        return UNAUTHENTICATED
    if attribute(request, "PRIORITY") is None:  # RFC 8445 section 7.1.1: mandatory
        return BAD_REQUEST
    return None


def query_request() -> stun.Message:
    """Build the question "from which address do you see me?" to a STUN server (RFC 8489 section 2)."""
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.add_fingerprint()
    return message
