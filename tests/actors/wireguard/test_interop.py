"""Against wireguard-go, in a network namespace of its own: both roles, a preshared key, echoes, cookies."""

import base64
import contextlib
import ctypes
import os
import random
import secrets
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exeunt.actors.wireguard import CookieChecker, DropReason, HandshakeCompleted, PrefixedIndices, Tunnel
from exeunt.actors.wireguard.testing import public_key

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun"),
    pytest.mark.skipif(
        not all(shutil.which(tool) for tool in ("wireguard-go", "wg", "ip")),
        reason="wireguard-go, wg or ip is not installed",
    ),
]

OUR_KEY, THEIR_KEY, PRESHARED_KEY = b"\x21" * 32, b"\x42" * 32, b"\x63" * 32
OUR_ADDRESS, THEIR_ADDRESS = "10.213.77.2", "10.213.77.1"
DEADLINE_S = 10.0


def run(*command: str, stdin: bytes = b"") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=10)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.decode()


def socket_in(namespace: str) -> socket.socket:
    """A UDP socket that lives in a namespace: the namespace is a thread's at the moment of creation."""
    made: list[socket.socket] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/var/run/netns/{namespace}").open("rb") as handle:
            assert libc.setns(handle.fileno(), 0x40000000) == 0, os.strerror(ctypes.get_errno())
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


class Peer:
    """A running wireguard-go whose only peer is our socket on its namespace's loopback."""

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self.ours = socket_in(namespace)
        self.ours.bind(("127.0.0.1", 0))
        reserved = socket_in(namespace)
        reserved.bind(("127.0.0.1", 0))
        self.endpoint: tuple[str, int] = reserved.getsockname()
        reserved.close()

    def configure(self, tmp_path: Path) -> None:
        files: dict[str, bytes] = {"private": THEIR_KEY, "preshared": PRESHARED_KEY}
        for file, key in files.items():
            (tmp_path / file).write_bytes(base64.b64encode(key))
        where = ("ip", "netns", "exec", self.namespace)
        run(
            *(*where, "wg", "set", self.name, "private-key", str(tmp_path / "private")),
            *("listen-port", str(self.endpoint[1]), "peer", base64.b64encode(public_key(OUR_KEY)).decode()),
            *("preshared-key", str(tmp_path / "preshared"), "allowed-ips", f"{OUR_ADDRESS}/32"),
            *("endpoint", f"127.0.0.1:{self.ours.getsockname()[1]}"),
        )
        run("ip", "-n", self.namespace, "addr", "add", f"{THEIR_ADDRESS}/24", "dev", self.name)
        run("ip", "-n", self.namespace, "link", "set", self.name, "up")

    def exchange(self, tunnel: Tunnel, until: Callable[[], bool]) -> list[bytes]:
        """Carry datagrams between the tunnel and wireguard-go until a condition holds; return the inner packets."""
        packets: list[bytes] = []
        deadline = time.monotonic() + DEADLINE_S
        while True:
            while (datagram := tunnel.poll_transmit()) is not None:
                self.ours.sendto(datagram, self.endpoint)
            now = time.monotonic()
            if until() or packets:
                return packets
            assert now < deadline, dict(tunnel.drops)
            wake = tunnel.poll_timeout()
            wait_s = 0.05 if wake is None else min(0.05, wake[0] - now)
            if select.select([self.ours], [], [], max(0.0, wait_s))[0]:
                packet = tunnel.handle_datagram(self.ours.recv(2048), time.monotonic(), b"loopback")
                if packet is not None and packet[0] >> 4 == 4:  # the kernel may send IPv6 router solicitations
                    packets.append(packet)
            tunnel.handle_timeout(time.monotonic())


@pytest.fixture(name="peer")
def running_peer(tmp_path: Path) -> Iterator[Peer]:
    unique = secrets.token_hex(3)
    namespace, name = f"exeunt-wg-{unique}", f"exwg{unique}"
    with contextlib.ExitStack() as cleanup:
        run("ip", "netns", "add", namespace)
        cleanup.callback(run, "ip", "netns", "delete", namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "wireguard-go", "-f", name],
            env={**os.environ, "LOG_LEVEL": "verbose", "WG_PROCESS_FOREGROUND": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        cleanup.callback(process.wait, 5)
        cleanup.callback(process.terminate)
        assert process.stdout is not None
        cleanup.callback(process.stdout.close)
        for line in process.stdout:
            if b"UAPI listener started" in line:
                break
        else:
            pytest.skip("wireguard-go does not start here")
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        cleanup.callback(drain.join, 5)
        cleanup.callback(process.terminate)
        peer = Peer(namespace, name)
        cleanup.callback(peer.ours.close)
        peer.configure(tmp_path)
        yield peer


def our_tunnel(*, initiator: bool, gate: CookieChecker | None = None) -> Tunnel:
    return Tunnel(
        private_key=OUR_KEY,
        peer_public_key=public_key(THEIR_KEY),
        preshared_key=PRESHARED_KEY,
        initiator=initiator,
        allocate_index=PrefixedIndices(0x4711),
        rng=random.Random(1),
        gate=gate,
    )


def checksum(data: bytes) -> int:
    words: tuple[int, ...] = struct.unpack(f">{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(payload: bytes) -> bytes:
    """An ICMP echo request from our inner address to theirs; the payload's length is even."""
    icmp = struct.pack(">BBHHH", 8, 0, 0, 7, 1) + payload
    icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
    ends = socket.inet_aton(OUR_ADDRESS) + socket.inet_aton(THEIR_ADDRESS)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0) + ends
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + icmp


def assert_echoes(peer: Peer, tunnel: Tunnel, payload: bytes) -> None:
    datagram = tunnel.encapsulate(echo_request(payload), time.monotonic())
    if datagram is not None:
        peer.ours.sendto(datagram, peer.endpoint)
    (reply,) = peer.exchange(tunnel, lambda: False)
    assert reply[9] == 1  # ICMP
    assert reply[20] == 0  # echo reply
    assert reply[28:] == payload


def make_them_send(peer: Peer, payload: bytes) -> None:
    with socket_in(peer.namespace) as theirs:
        theirs.sendto(payload, (OUR_ADDRESS, 9))


def test_we_initiate_and_echoes_come_back(peer: Peer) -> None:
    tunnel = our_tunnel(initiator=True)
    for size in (0, 2, 56, 1300):
        assert_echoes(peer, tunnel, bytes(range(256))[: size % 256] + bytes(size - size % 256))
    assert not any(tunnel.drops.values())
    transfer = run("ip", "netns", "exec", peer.namespace, "wg", "show", peer.name, "transfer").split()
    assert int(transfer[2]) == tunnel.rx_bytes
    assert int(transfer[1]) == tunnel.tx_bytes


def test_wireguard_go_initiates_and_we_answer(peer: Peer) -> None:
    tunnel = our_tunnel(initiator=False)
    make_them_send(peer, b"hello")
    (packet,) = peer.exchange(tunnel, lambda: False)
    assert packet[9] == 17  # UDP
    assert packet[28:] == b"hello"
    assert_echoes(peer, tunnel, b"and back")
    assert not any(tunnel.drops.values())


def test_a_rekey_does_not_interrupt_traffic(peer: Peer) -> None:
    tunnel = our_tunnel(initiator=True)
    indices: list[int] = []

    def completed() -> bool:
        event = tunnel.poll_event()
        if isinstance(event, HandshakeCompleted):
            indices.append(event.remote_index)
            return True
        return False

    for number in range(3):
        tunnel.connect(time.monotonic())
        peer.exchange(tunnel, completed)
        assert_echoes(peer, tunnel, bytes([number]) * 8)
        # wireguard-go, too, takes no more than 50 initiations a second.
        resume_at = time.monotonic() + 0.03
        peer.exchange(tunnel, lambda at=resume_at: time.monotonic() >= at)  # type: ignore[misc]
    assert len(set(indices)) == 3
    assert tunnel.drops[DropReason.BAD_HANDSHAKE] == 0


def test_wireguard_go_takes_a_packet_sealed_ahead_and_nothing_after_it(peer: Peer) -> None:
    """Its counter leaps to the topmost that wireguard-go accepts. It is an echo request, so the answer proves it."""
    tunnel = our_tunnel(initiator=True)
    assert_echoes(peer, tunnel, b"before")
    will = tunnel.seal_last_will(echo_request(b"the last"), time.monotonic())
    assert will is not None
    peer.ours.sendto(will, peer.endpoint)
    (reply,) = peer.exchange(tunnel, lambda: False)
    assert reply[28:] == b"the last"
    peer.ours.sendto(will, peer.endpoint)
    late = tunnel.encapsulate(echo_request(b"too late"), time.monotonic())
    assert late is not None
    peer.ours.sendto(late, peer.endpoint)
    quiet_until = time.monotonic() + 0.3  # nothing is to come; it would within a millisecond
    assert peer.exchange(tunnel, lambda: time.monotonic() >= quiet_until) == []


def test_wireguard_go_understands_our_cookies(peer: Peer) -> None:
    """It repeats its initiation after five seconds, with the second MAC."""
    tunnel = our_tunnel(initiator=False, gate=CookieChecker(public_key(OUR_KEY), handshakes_per_second=0))
    make_them_send(peer, b"under load")
    (packet,) = peer.exchange(tunnel, lambda: False)
    assert packet[28:] == b"under load"
    assert tunnel.drops[DropReason.UNDER_LOAD] == 1
