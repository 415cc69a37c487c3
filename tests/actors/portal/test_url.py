"""Where the portal's websockets are."""

import pytest

from exeunt.actors.portal import websocket_url


@pytest.mark.parametrize(
    ("portal", "websocket"),
    [
        ("https://portal.example", "wss://portal.example/v1/client"),
        ("http://127.0.0.1:8080/", "ws://127.0.0.1:8080/v1/client"),
        ("wss://portal.example/base/", "wss://portal.example/base/v1/client"),
        ("http://[::1]:8080", "ws://[::1]:8080/v1/client"),
    ],
)
def test_websocket_url(portal: str, websocket: str) -> None:
    assert websocket_url(portal, "client") == websocket


@pytest.mark.parametrize("portal", ["portal.example", "ftp://portal.example", "https://", "https://a:b@portal.example"])
def test_what_is_no_portal(portal: str) -> None:
    with pytest.raises(ValueError, match="portal"):
        websocket_url(portal, "client")
