"""Throw hostile frames and bursts at the native kernel, built so that it ends where it touches what is not its own.

    make fuzz-native

builds it under AddressSanitizer and UndefinedBehaviorSanitizer and runs this. Buffers end where their allocation ends.
Each case has its number for a seed; now and then its result is compared with the pure kernel's. One in eight goes by a
lane, both ways, between real sockets; one in sixteen are checks that come where they are answered.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import random
import socket
import time
from array import array
from importlib.machinery import ExtensionFileLoader

from exeunt.actors.batch import MAX_DATAGRAMS, OUT_BYTES_EACH, TRAIN_BYTES, VNET_BYTES, Kernel, Opened, Sealed, Sealing
from exeunt.actors.batch.native import NativeKernel
from exeunt.actors.batch.pure import KERNEL as PURE
from exeunt.actors.ice.ancillary import SOL_UDP, UDP_SEGMENT, prepare, prepare_trains
from exeunt.actors.ice.packing import Packing, Role
from exeunt.actors.ice.rest import packed_remote
from exeunt.actors.wireguard.replay import ReplayWindow

from .hostile import REMOTE_INDEX, hostile_burst, hostile_frame
from .hostile_checks import hostile_check, hostile_credentials

KEY = bytes(range(32))
COMPARED_EVERY = 16


def loaded(path: str) -> NativeKernel:
    """The kernel in this file."""
    spec = importlib.util.spec_from_loader("_native", ExtensionFileLoader("_native", path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return NativeKernel(module)


class Block:
    """An allocation that lives on, so that cases cost little."""

    def __init__(self) -> None:
        self.all = memoryview(array("B", b"\0") * TRAIN_BYTES)  # a bytearray would have a byte to spare

    def last(self, size: int) -> memoryview:
        """So many bytes, the last ones."""
        return self.all[len(self.all) - size :]

    def holding(self, data: bytes | bytearray) -> memoryview:
        """Those bytes, at the end."""
        room = self.last(len(data))
        room[:] = data
        return room


class Cases:
    """One case after the other."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.into, self.out = Block(), Block()

    def seal(self, number: int) -> tuple[Sealed, bytes]:
        rng = random.Random(number)
        frame = bytes(hostile_frame(rng))
        sealing = self.kernel.sealing(KEY, REMOTE_INDEX)
        counter, mtu = rng.choice((0, 2**60, 2**64 - 1_025)), rng.choice((0, 576, 1_280, 1_420, 65_535))
        channel = rng.choice((None, 0x4001))

        def into(size: int) -> Sealed:
            return sealing.seal(
                self.into.holding(frame), self.out.last(size), counter=counter, mtu=mtu, channel=channel
            )

        self._seal_all(sealing, rng, frame, counter, mtu)
        sealed = into(TRAIN_BYTES)
        train = bytes(self.out.all[: sealed.total])
        if self.kernel.name == "native" and train:
            assert into(len(train)) == sealed
            assert self.out.last(len(train)) == train
            with contextlib.suppress(ValueError):
                raise AssertionError(into(len(train) - 1))
        return sealed, train

    def _seal_all(self, sealing: Sealing, rng: random.Random, frame: bytes, counter: int, mtu: int) -> None:
        """The frame several times over, at spans that are right or lead anywhere."""
        buffer = self.into.holding(frame * 3)
        edges = (0, 1, len(frame), 2 * len(frame), 3 * len(frame), 2**31, 2**32 - 1)
        spans = array("I", (0, len(frame), len(frame), len(frame)))
        if rng.randrange(4) == 0:
            spans = array("I", (rng.choice(edges) for _ in range(rng.randrange(6))))
        if self.kernel.name != "native":  # who trusts its caller
            return
        with contextlib.suppress(ValueError, OverflowError):
            for size in (TRAIN_BYTES, 200):
                done = sealing.seal_each(buffer, spans, self.out.last(size), counter=counter, mtu=mtu)
                assert sum(one.total for one in done) <= size
        self.kernel.index_of(buffer, spans)

    def open(self, number: int) -> list[tuple[Opened, list[bytes]]]:
        rng = random.Random(number)
        opening = self.kernel.opening(KEY, ReplayWindow())
        results: list[tuple[Opened, list[bytes]]] = []
        first = rng.choice((0, 63, 8_190, 2**60))
        for _ in range(2):
            burst = hostile_burst(rng, KEY, first)
            out = self.out.last(sum(burst.spans[1::2]) + (VNET_BYTES - 32) * (len(burst.spans) // 2))
            opened = opening.open(
                self.into.holding(burst.buffer), burst.spans, out, limit=burst.limit, coalesce=bool(rng.randrange(8))
            )
            results.append(
                (
                    opened._replace(frames=list(opened.frames)),
                    [bytes(out[start:end]) for start, end, _ in opened.frames],
                )
            )
        return results

    def refuse(self, number: int) -> None:
        """Break the contract: spans that lead anywhere, buffers of any size."""
        rng = random.Random(number)
        opening = self.kernel.opening(KEY, ReplayWindow())
        edges = (0, 1, 31, 32, 100, 2**31, 2**32 - 1)
        spans = array("I", (rng.choice(edges) for _ in range(rng.randrange(6))))
        buffer, out = self.into.last(rng.choice((0, 31, 32, 200))), self.out.last(rng.choice((0, 9, 10, 200)))
        with contextlib.suppress(ValueError):
            opening.open(buffer, spans, out, limit=2**60)
            assert all(at + size <= len(buffer) and size > 31 for at, size in zip(spans[::2], spans[1::2], strict=True))


class LaneCases:
    """Lanes between sockets on loopback and a device that is one end of a pair of sockets."""

    def __init__(self, kernel: NativeKernel) -> None:
        assert kernel.lanes is not None
        self.kernel, self.lanes = kernel, kernel.lanes()
        self.device, self.host = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours, self.theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for one in (self.ours, self.theirs):
            one.bind(("127.0.0.1", 0))
        self.theirs.connect(self.ours.getsockname())
        prepare(self.ours)
        prepare_trains(self.ours)
        for one in (self.device, self.host, self.ours, self.theirs):
            one.setblocking(False)
        self.remote = self.theirs.getsockname()[1].to_bytes(2, "big") + bytes(4) + socket.inet_aton("127.0.0.1")
        self.buffer, self.out = _block(2 * 65_535), _block(2 * 65_535 + MAX_DATAGRAMS * OUT_BYTES_EACH)
        self.frames, self.train = _block(2 * 65_545), _block(TRAIN_BYTES)

    def go(self, number: int) -> None:
        """One case: a session's life."""
        rng = random.Random(number)
        known = [bytes(range(4)), bytes(range(16)), bytes(range(4, 8)), bytes(range(16, 32))]
        own = tuple(rng.sample(known, rng.randrange(3)) if rng.randrange(4) == 0 else ())
        self.lanes.set_device(self.device.fileno(), rng.choice((0, 0, VNET_BYTES)), bool(rng.randrange(8)), own)
        burst, counter = hostile_burst(rng, KEY, rng.choice((0, 63, 8_190, 2**60))), array("Q", (0,))
        lane = self.lanes.open(
            owner=self,
            sealing=self.kernel.sealing(KEY, REMOTE_INDEX),
            opening=self.kernel.opening(KEY, ReplayWindow()),
            counter=counter,
            local_index=REMOTE_INDEX,
            descriptor=self.ours.fileno(),
            remote=self.remote,
            local=socket.inet_aton("127.0.0.1"),
            expires_at=rng.choice((0.0, 1e12, 1e12)),
            seal_before=rng.choice((1_025, 2**60)),
            reject_after=burst.limit,
            mtu=rng.choice((0, 576, 1_420)),
            limit=rng.choice((0, 0, 500)),
        )
        others = [rng.randbytes(rng.choice((4, 16))) for _ in range(rng.choice((0, 0, 0, 8, 8, 5_000)))]
        for address in known + others if rng.randrange(2) else others + known:
            self.lanes.know(address, lane)
        if rng.randrange(50) == 0:
            self.lanes.forget()
        self._come(
            rng, [burst.buffer[at : at + size] for at, size in zip(burst.spans[::2], burst.spans[1::2], strict=True)]
        )
        self._go([bytes(hostile_frame(rng)) for _ in range(rng.choice((1, 3, 8)))])
        lane.books()
        self.lanes.close(lane)

    def _come(self, rng: random.Random, datagrams: list[bytes]) -> None:
        for one in datagrams:
            self.theirs.send(one if rng.randrange(20) else rng.randbytes(rng.randrange(60)))
        end, _, _, runs, *_ = self.lanes.receive(
            self.ours.fileno(), self.buffer, 0, 64, bool(rng.randrange(2)), self.out
        )
        for _, spans, *_ in runs:
            places = array("I", spans)
            assert all(at + size <= end for at, size in zip(places[::2], places[1::2], strict=True))
        for sock in (self.ours, self.host):
            _drain(sock)

    def _go(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.host.send(frame)
        found, reads, *_ = self.lanes.send(self.frames, 64, self.train)
        assert len(array("I", found)) <= 2 * reads
        for sock in (self.device, self.theirs):
            _drain(sock)


class AnswerCases:
    """Answerers between sockets on loopback; what they answer is what Python would have."""

    def __init__(self, kernel: NativeKernel) -> None:
        assert kernel.lanes is not None
        self.lanes = kernel.lanes()
        self.ours, self.theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for one in (self.ours, self.theirs):
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
        self.theirs.connect(self.ours.getsockname())
        prepare(self.ours)
        prepare_trains(self.ours)
        self.buffer, self.out = _block(2 * 65_535), _block(2 * 65_535 + MAX_DATAGRAMS * OUT_BYTES_EACH)

    def go(self, number: int) -> None:
        """One case: a session's rest."""
        rng = random.Random(number)
        here, there = hostile_credentials(rng)
        role = Role(controlling=bool(rng.randrange(4)), tie_breaker=rng.getrandbits(64))
        first = Packing(there).request(bytes(12), role, nominate=True)
        nominations = rng.randbytes(12 * rng.choice((0, 1, 63, 64)))
        answerer = self.lanes.answer(
            owner=self,
            key=here.local_password.encode(),
            asked=first[20:-32],
            nominates=role.controlling,
            nominations=nominations,
            descriptor=self.ours.fileno(),
            remote=packed_remote(self.theirs.getsockname()) or b"",
            local=socket.inet_aton("127.0.0.1"),
            heard_at=0.0,
            quiet_s=6.0,
        )
        assert answerer is not None
        came = [hostile_check(rng, there, role) for _ in range(rng.choice((1, 3, 10)))]
        left = self._come(rng, came)
        self.lanes.answer_no_more(answerer)
        answered = [one for one in came if one not in left]
        assert [self.theirs.recv(1_000) for _ in answered] == [
            Packing(here).success(one[8:20], self.theirs.getsockname()) for one in answered
        ]
        reader = Packing(here)
        assert all(reader.read_request(one) is not None for one in answered)
        assert answerer.books()[0] == len(answered)
        ids = (nominations + b"".join(one[8:20] for one in answered if role.controlling))[-12 * 64 :]
        assert answerer.nominations() == ids
        _drain(self.theirs)

    def _come(self, rng: random.Random, datagrams: list[bytes]) -> list[bytes]:
        """Have them come, maybe as a train, and return what is left."""
        size = len(datagrams[0])
        if size and rng.randrange(4) == 0 and all(len(one) == size for one in datagrams):
            self.theirs.sendmsg([b"".join(datagrams)], [(SOL_UDP, UDP_SEGMENT, array("H", [size]))])
        else:
            for one in datagrams:
                self.theirs.send(one)
        left: list[bytes] = []
        error, lonely = 0, bool(rng.randrange(2))
        while not error:
            end, _, error, runs, *_ = self.lanes.receive(
                self.ours.fileno(), self.buffer, 0, rng.choice((1, 64)), lonely, self.out
            )
            for _, spans, *_ in runs:
                for at, length in zip(*(iter(array("I", spans)),) * 2, strict=True):
                    assert at + length <= end
                    left.append(bytes(self.buffer[at : at + length]))
        return left


def _block(size: int) -> memoryview:
    return memoryview(array("B", b"\0") * size)


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="the compiled kernel")
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0, help="to come back to a case")
    args = parser.parse_args()
    kernel = loaded(args.path)
    cases, reference, lanes, answers = Cases(kernel), Cases(PURE), LaneCases(kernel), AnswerCases(kernel)
    began = time.monotonic()
    for number in range(args.first, args.first + args.cases):
        compared = number // 4 % COMPARED_EVERY == 0
        match number % 4:
            case 0 | 1:
                sealed = cases.seal(number)
                assert not compared or sealed == reference.seal(number), number
            case 2:
                opened = cases.open(number)
                assert not compared or opened == reference.open(number), number
            case _ if number % 8 == 3:
                lanes.go(number)
            case _ if number % 16 == 7:
                answers.go(number)
            case _:
                cases.refuse(number)
        if number % 20_000 == 0:
            print(f"case {number}", flush=True)
    print(f"{args.cases} cases in {time.monotonic() - began:.0f} s, and nothing wrong")


if __name__ == "__main__":
    main()
