"""Time-limited TURN credentials, made and checked without a shared database.

The portal and the relay share one secret. The portal hands a peer a user name that carries its own expiry,
``<unix expiry>:<identifier>``, and as password the HMAC-SHA1 of that name under the secret, in base64. The
relay computes the same password again when the name comes back, so that it stores nothing about anybody, and
a name whose time is over is refused. This is the "TURN REST API" scheme (draft-uberti-behave-turn-rest-00
section 2.2), which coturn calls ``use-auth-secret``: either relay accepts what is made here.

SHA-1 and MD5 are what the scheme and RFC 8489 section 9.2.2 prescribe; neither use rests on collision
resistance.

A gateway holds an allocation for each of its clients, a client one for each of its gateways. So the portal marks a
gateway's identifier, under the HMAC like the rest of the name, and the relay grants it more.
"""

import base64
import hashlib
import hmac

_GATEWAY = "gateway/"


def credentials(secret: str, identifier: str, now_unix: float, lifetime_s: float) -> tuple[str, str]:
    """Make the user name and password that let ``identifier`` use the relay for ``lifetime_s`` seconds.

    Args:
        secret: the secret that the relay knows too.
        identifier: whom the credentials are for; shown in the relay's quotas. Not empty.
        now_unix: the present, in seconds since 1970 (UTC).
        lifetime_s: how long they hold, in seconds; positive.

    Returns:
        ``(username, password)``.

    Raises:
        ValueError: an empty secret or identifier, or a lifetime that is not positive.
    """
    if not secret or not identifier:
        raise ValueError("A TURN credential needs a secret and an identifier.")
    if lifetime_s <= 0:
        raise ValueError("A TURN credential must live for more than zero seconds.")
    username = f"{int(now_unix + lifetime_s)}:{identifier}"
    return username, password_for(secret, username)


def password_for(secret: str, username: str) -> str:
    """Answer the password that belongs to ``username``: base64(HMAC-SHA1(secret, username))."""
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")


def expiry_unix(username: str) -> int | None:
    """Answer the second, since 1970, at which ``username`` stops being valid; None when it carries none."""
    expiry, separator, _identifier = username.partition(":")
    # Ten digits last until the year 2286; much longer "numbers" are hostile ones.
    if not separator or not 1 <= len(expiry) <= 12 or not (expiry.isascii() and expiry.isdigit()):
        return None
    return int(expiry)


def identifier_of(username: str) -> str:
    """Answer whom ``username`` is for: what quotas go by, however often new credentials are issued."""
    return username.partition(":")[2]


def gateway_identifier(identifier: str) -> str:
    """Answer what a gateway's credentials are issued for, so that the relay knows it for one."""
    return _GATEWAY + identifier


def is_gateway(identifier: str) -> bool:
    """Tell whether an identifier was marked as a gateway's."""
    return identifier.startswith(_GATEWAY)


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """Answer the MESSAGE-INTEGRITY key, MD5(username ":" realm ":" password) (RFC 8489 section 9.2.2)."""
    return hashlib.md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).digest()
