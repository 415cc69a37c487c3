"""Hostile datagrams against tunnels that are in use: seeded mutations of genuine ones, or whatever atheris thinks of.

    python -m tests.actors.wireguard.fuzzing --count 1000000 --seed 1
    python -m tests.actors.wireguard.fuzzing --atheris -runs=1000000     # with `pip install atheris`

They come one by one, or as bursts to the kernels that open many at once. After each there is no exception, no packet
for the device, and nothing sent but by who is under load one cookie reply for a handshake message, which is longer. And
the tunnel is as it was, to the last bit of its replay windows and the last timer: its snapshot says so.

The attacker knows the public keys (so mac1 can be right), has recorded everything, and knows all indices. What he
cannot do is authenticate. A handshake message that has not arrived yet is not among what is mutated: its sender's index
is covered by mac1 alone, so he could change that, to no other effect than that the answer finds nobody.
"""

import argparse
import importlib
import itertools
import random
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence

from exeunt.actors.batch import OUT_BYTES_EACH, Kernel, native
from exeunt.actors.batch.pure import PureKernel
from exeunt.actors.wireguard import CookieChecker, MessageType, Tunnel, classify, peek_static, receiver_index
from exeunt.actors.wireguard.mac import mac1_key
from exeunt.actors.wireguard.noise import keyed_mac
from exeunt.actors.wireguard.snapshot import TunnelSnapshot
from exeunt.actors.wireguard.testing import SIDES, Side, TunnelPair, ipv4_packet, public_key
from exeunt.actors.wireguard.timing import REJECT_AFTER_MESSAGES
from exeunt.actors.wireguard.wire import MAC_BYTES

PRIVATE_KEYS: dict[Side, bytes] = {"client": b"\x11" * 32, "gateway": b"\x22" * 32}
_HANDSHAKE_BYTES = {92, 148}
_SIGNED = slice(0, -2 * MAC_BYTES)
_MAC1 = slice(-2 * MAC_BYTES, -MAC_BYTES)
_BURST, _LONGEST_BYTES = 32, 512
_BURSTS = (1, 1, 1, 1, 1, 2, 5, _BURST)
"""Most calls are for one datagram, most datagrams come in bursts."""
_SNAPSHOT_EVERY = 512
"""A snapshot costs as much as twenty datagrams. Between two of them the cheap signs are looked at."""


class Receiver:
    """One tunnel, and how it was when the bombardment began."""

    def __init__(self, pair: TunnelPair, side: Side, *, gated: bool) -> None:
        self.tunnel: Tunnel = pair.tunnels[side]
        self.gated = gated
        self._mac1_key = mac1_key(public_key(PRIVATE_KEYS[side]))
        self._private_key = PRIVATE_KEYS[side]
        self._now = pair.now
        self._out = memoryview(bytearray(_BURST * (_LONGEST_BYTES + OUT_BYTES_EACH)))
        self._before = self._whole()
        self._indices, self._drops = self.tunnel.local_indices, sum(self.tunnel.drops.values())
        self._handled = 0

    def sign(self, datagram: bytes) -> bytes:
        """Return it with a first MAC that this receiver finds right, if it has the size of a handshake message."""
        if len(datagram) not in _HANDSHAKE_BYTES:
            return datagram
        return datagram[_SIGNED] + keyed_mac(self._mac1_key, datagram[_SIGNED]) + datagram[-MAC_BYTES:]

    def take(self, datagram: bytes) -> None:
        """Take in a datagram that must change nothing. AssertionError: it did."""
        classify(datagram)
        receiver_index(datagram)
        assert self.tunnel.handle_datagram(datagram, self._now, b"\xc0\0\2\1\x30\x39") is None, datagram.hex()
        self._look(datagram, 1)

    def take_burst(self, datagrams: Sequence[bytes]) -> None:
        """Take in some at once that must change nothing. AssertionError: they did."""
        spans, buffer = array("I"), bytearray()
        for datagram in datagrams:
            spans.extend((len(buffer), len(datagram)))
            buffer += datagram
        everything = bytes(buffer)
        assert self.tunnel.handle_datagrams(memoryview(buffer), spans, self._out, self._now) == [], everything.hex()
        self._look(everything, len(datagrams))

    def _look(self, datagram: bytes, count: int) -> None:
        """At the cheap signs; and now and then at everything."""
        self._handled += count
        sent = 0
        while (reply := self.tunnel.poll_transmit()) is not None:
            assert self.gated, datagram.hex()
            assert classify(reply) is MessageType.COOKIE_REPLY, datagram.hex()
            sent += len(reply)
        assert sent < len(datagram) or not sent, datagram.hex()
        assert self.tunnel.poll_event() is None, datagram.hex()
        assert sum(self.tunnel.drops.values()) == self._drops + self._handled, datagram.hex()
        if self._handled % _SNAPSHOT_EVERY < count:
            self.check()

    def peek(self, datagram: bytes) -> None:
        """Look at it as who finds the tunnel of an initiation."""
        peek_static(self._private_key, datagram)

    def check(self) -> None:
        """AssertionError: something has changed since the beginning."""
        assert self._whole() == self._before
        assert self.tunnel.local_indices == self._indices

    def _whole(self) -> TunnelSnapshot:
        return self.tunnel.snapshot()


def receivers() -> tuple[list[Receiver], list[bytes]]:
    """Return tunnels that are in use, with several sessions and a handshake under way, and what was recorded."""
    found: list[Receiver] = []
    recorded: list[bytes] = []
    for gated, kernel in itertools.product((False, True), _kernels()):
        pair, seen = _busy_pair(kernel, gated=gated)
        recorded += seen
        unseen = [pair.tunnels[side].encapsulate(ipv4_packet(200), pair.now) for side in SIDES]
        recorded += [datagram for datagram in unseen if datagram is not None]
        found += [Receiver(pair, side, gated=gated) for side in SIDES]
    return found, recorded


def _kernels() -> list[Kernel]:
    """All that exist: one in Python, and the one in C where it is built."""
    compiled = native.load()
    return [PureKernel(), *([] if compiled is None else [compiled])]


def _busy_pair(kernel: Kernel, *, gated: bool) -> tuple[TunnelPair, list[bytes]]:
    """The gateway has a current and a next session, the client two and an initiation that was not answered. Gates are
    under load from the sixth message in a second on.
    """
    keys = [public_key(PRIVATE_KEYS[side]) for side in SIDES]
    gates = [CookieChecker(key, handshakes_per_second=5) if gated else None for key in keys]
    pair = TunnelPair(client_gate=gates[0], gateway_gate=gates[1], kernel=lambda: kernel)
    for _ in range(2):
        pair.connect()
        pair.send("client", ipv4_packet())
        pair.send("gateway", ipv4_packet(100))
        pair.advance(1.0)
    answered = [datagram for _, datagram in pair.carried]
    pair.lost = lambda datagram: classify(datagram) is MessageType.RESPONSE
    pair.connect()
    pair.advance(1.0)
    asked = [datagram for _, datagram in pair.carried if classify(datagram) is MessageType.INITIATION]
    return pair, answered + asked


class Mutator:
    """Makes hostile datagrams of recorded ones. The same seed makes the same ones."""

    def __init__(self, recorded: Sequence[bytes], rng: random.Random) -> None:
        self._recorded = recorded
        self._genuine = frozenset(recorded)
        self._rng = rng
        self._ways: tuple[Callable[[bytes], bytes], ...] = (
            self._flipped,
            self._flipped,
            self._cut_or_longer,
            self._spliced,
            self._other_counter,
            self._other_type,
            self._noise,
        )

    def next(self) -> bytes:
        """Return another one; never a genuine one as it was."""
        while True:
            datagram = self._rng.choice(self._ways)(self._rng.choice(self._recorded))
            if datagram not in self._genuine:
                return datagram

    def _flipped(self, datagram: bytes) -> bytes:
        broken = bytearray(datagram)
        for _ in range(self._rng.choice((1, 1, 2, 5))):
            broken[self._rng.randrange(len(broken))] ^= 1 << self._rng.randrange(8)
        return bytes(broken)

    def _cut_or_longer(self, datagram: bytes) -> bytes:
        size = self._rng.randrange(len(datagram) + 40)
        return datagram[:size] + self._rng.randbytes(max(0, size - len(datagram)))

    def _spliced(self, datagram: bytes) -> bytes:
        other, at = self._rng.choice(self._recorded), self._rng.randrange(len(datagram))
        return datagram[:at] + other[at:]

    def _other_counter(self, datagram: bytes) -> bytes:
        """Counters at every edge: the future, the far past, the limits."""
        counter = self._rng.choice((0, 1, 8191, 8192, REJECT_AFTER_MESSAGES - 1, REJECT_AFTER_MESSAGES, 2**64 - 1))
        return datagram[:8] + counter.to_bytes(8, "little") + datagram[16:]

    def _other_type(self, datagram: bytes) -> bytes:
        return bytes([self._rng.randrange(6)]) + datagram[1:]

    def _noise(self, datagram: bytes) -> bytes:
        return datagram[: self._rng.choice((0, 1, 4, 8, 16))] + self._rng.randbytes(len(datagram))[16:]


def bombard(count: int, seed: int) -> Counter[str]:
    """Send so many hostile datagrams; return what became of them. AssertionError: one of them did something."""
    targets, recorded = receivers()
    rng = random.Random(seed)
    mutator = Mutator(recorded, rng)
    left = count
    while left:
        target = rng.choice(targets)
        size = min(left, rng.choice(_BURSTS))
        datagrams = [mutator.next() for _ in range(size)]
        if rng.random() < 0.25:
            datagrams = [target.sign(datagram) for datagram in datagrams]
        if size == 1:
            target.take(datagrams[0])
        else:
            target.take_burst(datagrams)
        if rng.random() < 0.01:
            target.peek(datagrams[0])
        left -= size
    fates: Counter[str] = Counter()
    for target in targets:
        target.check()
        fates.update({reason.value: drops for reason, drops in target.tunnel.drops.items()})
    return fates


def fuzz_by_coverage(argv: list[str]) -> None:
    """Have atheris invent the datagrams: it watches which lines each one reaches."""
    atheris = importlib.import_module("atheris")  # 35 MB that nobody else needs
    atheris.instrument_all()
    targets, recorded = receivers()
    genuine = frozenset(recorded)

    def one_input(data: bytes) -> None:
        if not data:
            return
        target = targets[data[0] % len(targets)]
        datagram = target.sign(data[1:]) if data[0] & 0x80 else data[1:]
        if datagram not in genuine:
            target.take(datagram)
            target.peek(datagram)

    atheris.Setup([sys.argv[0], *argv], one_input)
    atheris.Fuzz()


def main() -> None:
    """See the module's own words."""
    parser = argparse.ArgumentParser(prog="python -m tests.actors.wireguard.fuzzing")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true")
    options, others = parser.parse_known_args()
    if options.atheris:
        fuzz_by_coverage(others)
        return
    began = time.monotonic()
    fates = bombard(options.count, options.seed)
    took_s = time.monotonic() - began
    print(
        f"{options.count:,} datagrams in {took_s:.1f} s, {took_s / options.count * 1e6:.1f} µs each; none did anything"
    )
    for fate, number in fates.most_common():
        if number:
            print(f"{number:>10,}  {fate}")


if __name__ == "__main__":
    main()
