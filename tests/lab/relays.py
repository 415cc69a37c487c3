"""The relays of the laboratory: ours, over UDP, and coturn, over UDP, TCP and TLS; both on IPv4 and IPv6.

Both accept the time-limited credentials that a portal would issue. Coturn's certificate is of an authority made for
the test; who shall trust it is given its file by SSL_CERT_FILE.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from aioice import stun
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from exeunt.actors.ice import IceServer
from exeunt.actors.turn.credentials import credentials
from exeunt.clients.lab import Internet, Namespace
from exeunt.clients.lab.internet import RELAY_ADDRESSES, RELAY_ADDRESSES6

SECRET = "the secret of the laboratory's relays"
PORT, TLS_PORT = 3478, 443
READY_S = 20.0
Transport = Literal["udp", "tcp", "tls"]


class Authority:
    """A certificate authority, and a certificate of it for coturn's addresses. All files are in one directory."""

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "authority.pem"
        self.server_certificate = directory / "relay.pem"
        self.server_key = directory / "relay-key.pem"
        key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "The laboratory's authority")])
        root = self._builder(name, name, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        root = root.add_extension(usage, critical=True).add_extension(identifier, critical=False)
        addresses = [ipaddress.ip_address(each) for each in (*RELAY_ADDRESSES, *RELAY_ADDRESSES6)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A relay")])
        server = self._builder(subject, name, server_key)
        server = server.add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(each) for each in addresses]), critical=False
        )
        server = server.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        pem = serialization.Encoding.PEM
        self.certificate.write_bytes(root.sign(key, hashes.SHA256()).public_bytes(pem))
        self.server_certificate.write_bytes(server.sign(key, hashes.SHA256()).public_bytes(pem))
        self.server_key.write_bytes(
            server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    @staticmethod
    def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return x509.CertificateBuilder(
            issuer_name=issuer,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - dt.timedelta(hours=1),
            not_valid_after=now + dt.timedelta(days=1),
        )


def start_embedded(internet: Internet, home: Path, *, ipv6: bool) -> subprocess.Popen[bytes]:
    """Start `exeunt relay run` at the relay's first addresses, and wait until it answers."""
    listen = ["--listen", f"{RELAY_ADDRESSES[0]}:{PORT}"]
    listen += ["--listen-ipv6", f"[{RELAY_ADDRESSES6[0]}]:{PORT}"] if ipv6 else []
    most = ["--max-allocations-per-user", "4096"]
    with (home / "embedded.output").open("wb") as output:
        process = internet.relay.popen(
            [sys.executable, "-m", "exeunt.clients", "relay", "run", *listen, *most],
            env={**os.environ, "EXEUNT_HOME": str(home), "EXEUNT_RELAY_SECRET": SECRET},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    wait_until_it_answers(internet.relay, RELAY_ADDRESSES[0], process)
    return process


def start_coturn(internet: Internet, home: Path, authority: Authority, *, ipv6: bool) -> subprocess.Popen[bytes]:
    """Start coturn at the relay's second addresses, and wait until it answers."""
    program = shutil.which("turnserver")
    assert program is not None, "coturn is not installed"
    addresses = [RELAY_ADDRESSES[1], *([RELAY_ADDRESSES6[1]] if ipv6 else [])]
    configuration = [
        *(f"{key}={address}" for address in addresses for key in ("listening-ip", "relay-ip")),
        f"listening-port={PORT}",
        f"tls-listening-port={TLS_PORT}",
        f"cert={authority.server_certificate}",
        f"pkey={authority.server_key}",
        "use-auth-secret",
        f"static-auth-secret={SECRET}",
        "realm=exeunt",
        "no-cli",
        "no-dtls",
        "no-software-attribute",
        "log-file=stdout",
        "simple-log",
        f"pidfile={home}/coturn.pid",
        f"userdb={home}/coturn.db",
    ]
    (home / "coturn.conf").write_text("\n".join(configuration) + "\n")
    with (home / "coturn.output").open("wb") as output:
        process = internet.relay.popen(
            [program, "-c", str(home / "coturn.conf")], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    wait_until_it_answers(internet.relay, RELAY_ADDRESSES[1], process)
    return process


def wait_until_it_answers(place: Namespace, address: str, process: subprocess.Popen[bytes]) -> None:
    """Ask with STUN Binding requests until there is an answer."""
    request = bytes(stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST))
    asking = place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    deadline = time.monotonic() + READY_S
    with asking:
        asking.settimeout(0.1)
        while True:
            try:
                asking.sendto(request, (address, PORT))
                asking.recv(1000)
            except (TimeoutError, ConnectionRefusedError):
                assert process.poll() is None, "the relay has ended"
                assert time.monotonic() < deadline, "the relay does not answer"
            else:
                return


def server(address: str, transport: Transport, user: str = "laboratory") -> IceServer:
    """A relay at this address, with fresh credentials."""
    username, password = credentials(SECRET, user, time.time(), 86_400.0)
    port = TLS_PORT if transport == "tls" else PORT
    return IceServer("turn", address, port, transport, username, password)
