"""Throw hostile frames and bursts at the native kernel, built so that it ends where it touches what is not its own.

    make fuzz-native

builds it under AddressSanitizer and UndefinedBehaviorSanitizer and runs this. Buffers end where their allocation ends.
Each case has its number for a seed; now and then its result is compared with the pure kernel's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import random
import time
from array import array
from importlib.machinery import ExtensionFileLoader

from exeunt.actors.batch import TRAIN_BYTES, VNET_BYTES, Kernel, Opened, Sealed, Sealing
from exeunt.actors.batch.native import NativeKernel
from exeunt.actors.batch.pure import KERNEL as PURE
from exeunt.actors.wireguard.replay import ReplayWindow

from .hostile import REMOTE_INDEX, hostile_burst, hostile_frame

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="the compiled kernel")
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0, help="to come back to a case")
    args = parser.parse_args()
    cases, reference = Cases(loaded(args.path)), Cases(PURE)
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
            case _:
                cases.refuse(number)
        if number % 20_000 == 0:
            print(f"case {number}", flush=True)
    print(f"{args.cases} cases in {time.monotonic() - began:.0f} s, and nothing wrong")


if __name__ == "__main__":
    main()
