"""A gateway's end for peers that speak plain WireGuard: its port, its lasting key, and where it can be reached."""

import base64
import binascii
import ipaddress
import os
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from exeunt.actors.ice.hosts import host_addresses
from exeunt.actors.session import Listen

from .output import fail
from .paths import ensure_private
from .portal.addresses import host_and_port

KEY_FILE = "wireguard-key"
"""In the instance's state directory, as `wg genkey` writes it (0600)."""
_KEY_BYTES = 32
_NOT_GLOBAL = tuple(
    ipaddress.ip_network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
"""RFC 1918, RFC 6598, RFC 4193: addresses that only neighbours can reach."""


def listen(text: str, state_dir: Path) -> Listen:
    """What `--listen [HOST:]PORT` says; HOST is by what the peers reach the gateway. Makes the key if there is none.

    Raises:
        Failure: it is no port, or the key cannot be read or written.
    """
    try:
        host, port = host_and_port(text) if ":" in text else ("", host_and_port(f"any:{text}")[1])
    except ValueError:
        fail("config_invalid", f"{text!r} is neither PORT nor HOST:PORT.", "Give a port such as: --listen 51820")
    hosts = (host,) if host else _own_hosts()
    return Listen(port=port, private_key=lasting_key(state_dir / KEY_FILE), hosts=hosts)


def lasting_key(path: Path) -> bytes:
    """The private key in a file, made at the first time.

    Raises:
        Failure: the file cannot be used.
    """
    try:
        ensure_private(path.parent)
        key = X25519PrivateKey.generate().private_bytes_raw()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        _cannot_use(path, str(error))
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(key) + b"\n")
    return key


def _read(path: Path) -> bytes:
    try:
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except (OSError, binascii.Error) as error:
        _cannot_use(path, str(error))
    if len(key) != _KEY_BYTES:
        _cannot_use(path, "it holds no WireGuard key")
    return key


def _cannot_use(path: Path, why: str) -> NoReturn:
    fail("config_invalid", f"The gateway's key at {path} cannot be used: {why}.", "Without it, another one is made.")


def _own_hosts() -> tuple[str, ...]:
    """This host's addresses: those that may be reached from everywhere first, and of those IPv4."""
    addresses = [ipaddress.ip_address(one) for one in host_addresses(None)]
    addresses.sort(key=lambda one: (any(one in network for network in _NOT_GLOBAL), one.version))
    return tuple(str(one) for one in addresses)
