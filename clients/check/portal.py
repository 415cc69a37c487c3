"""The portal's health check, and the time of day that it tells (the Date of RFC 9110 section 6.6.1)."""

import asyncio
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ..check_contract import Clock, PortalReach
from .sockets import reason_of, resolve

MAX_HEAD_BYTES: Final = 16_384
PORTS: Final = {"ws": 80, "http": 80, "wss": 443, "https": 443}


class Answered(msgspec.Struct, frozen=True):
    """What a web server said."""

    status: int
    date: str | None


async def ask_portal(url: str) -> tuple[PortalReach, Clock | None]:
    """Ask whether the portal is well. Never raises for what the network does."""
    parts = urlsplit(url)
    try:
        port = parts.port or PORTS.get(parts.scheme, 443)
    except ValueError:
        return PortalReach(url=url, reason="its address is not well-formed"), None
    host = parts.hostname or ""
    context = ssl.create_default_context() if parts.scheme in ("wss", "https") else None
    began_at = time.monotonic()
    try:
        reader, writer = await _connect(host, port, context)
    except (OSError, TimeoutError) as error:
        return PortalReach(url=url, reason=reason_of(error)), None
    connected_at, asked_at_unix = time.monotonic(), time.time()
    reach = PortalReach(url=url, connect_ms=(connected_at - began_at) * 1000)
    try:
        head = f"GET {parts.path.rstrip('/')}/healthz HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii", "replace"))
        answered = parse_head(await reader.readuntil(b"\r\n\r\n"))
    except (OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError):
        return msgspec.structs.replace(reach, reason="it does not speak HTTP"), None
    finally:
        writer.transport.abort()
    answer_ms = (time.monotonic() - connected_at) * 1000
    reason = None if answered.status == 200 else f"it answers {answered.status}"
    clock = None if answered.date is None else clock_of(answered.date, asked_at_unix, answer_ms / 1000)
    return msgspec.structs.replace(reach, answer_ms=answer_ms, reason=reason), clock


async def _connect(
    host: str, port: int, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that takes it. Raises OSError."""
    failure: OSError = OSError("its name has no address")
    for address in await resolve(host, port):
        try:
            return await asyncio.open_connection(
                *address, ssl=context, server_hostname=host if context else None, limit=MAX_HEAD_BYTES
            )
        except OSError as error:
            failure = error
    raise failure


def parse_head(head: bytes) -> Answered:
    """Read the status and the date of an HTTP response. Raises ValueError."""
    status_line, *fields = head.decode("latin-1").split("\r\n")
    version, _, rest = status_line.partition(" ")
    if not version.startswith("HTTP/"):
        raise ValueError("no HTTP")
    named = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return Answered(int(rest[:3]), named.get("date"))


def clock_of(date: str, asked_at_unix: float, rtt_s: float) -> Clock | None:
    """Compare our clock with a Date; None if it is none.

    The Date has whole seconds and may have been made up to a second before it was sent (servers remember it for that
    long), so the truth lies from the Date to two seconds later, at some moment of the round trip.
    """
    try:
        told_at_unix = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    offset_s = asked_at_unix + rtt_s / 2 - (told_at_unix + 1.0)
    return Clock(source="the portal's HTTP Date", offset_ms=offset_s * 1000, error_ms=(1.0 + rtt_s / 2) * 1000)
