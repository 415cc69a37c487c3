"""Where the portal's websockets are, given the address that people type."""

from urllib.parse import urlsplit, urlunsplit

from .messages import PeerKind

_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def websocket_url(portal_url: str, kind: PeerKind) -> str:
    """The websocket of `kind` at a portal: `https://portal.example` → `wss://portal.example/v1/client`.

    Raises:
        ValueError: the URL has no host, or a scheme other than http, https, ws and wss, or carries
            credentials, which belong into a token file.
    """
    parts = urlsplit(portal_url)
    scheme = _WEBSOCKET_SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"not the URL of a portal: {portal_url!r}; expected one such as https://portal.example")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL of a portal does not carry credentials")
    return urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/v1/{kind}", "", ""))
