"""The batch kernels beside one another: CPU microseconds a packet of 1,420 bytes, sealed and opened, by packets a call.

A frame of TCP is sealed into its train; the train is opened and merged into the frame again. All kernels take turns
in every round. Next to them stands the cipher alone, one call a packet: nobody who seals packet by packet is faster.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
from array import array
from dataclasses import replace

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from tests.actors.batch.oracle import Tcp, frame_of

from exeunt.actors.batch import TRAIN_BYTES, VNET_BYTES, Kernel
from exeunt.actors.batch.pure import PureKernel
from exeunt.actors.wireguard.replay import ReplayWindow

from .report import Figure, Report

SEGMENTS = (1, 8, 44)
MTU = 1_420
FLOW = Tcp(flags=0x18, options=b"\x01\x01\x08\x0a" + bytes(8))
PAYLOAD = MTU - 52
PACKETS_A_ROUND = 2_000
CALLS_FOR_PACKETS = 32
LIMIT = 1 << 60


def kernels() -> dict[str, Kernel]:
    """All that exist here."""
    found: dict[str, Kernel] = {}
    if importlib.util.find_spec("numpy") is not None:
        found["pure with numpy"] = PureKernel()
    found["pure"] = PureKernel(with_numpy=False)
    if importlib.util.find_spec("exeunt.actors.batch.native") is not None:
        native: Kernel | None = importlib.import_module("exeunt.actors.batch.native").load()
        if native is not None:
            found["native"] = native
    return found


class Seat:
    """One kernel, both ends of a session, and the buffers between them."""

    def __init__(self, kernel: Kernel, segments: int) -> None:
        whole = replace(FLOW, payload=(bytes(range(251)) * 300)[: PAYLOAD * segments])
        self.frame = frame_of(whole, PAYLOAD) if segments > 1 else bytes(VNET_BYTES) + whole.write()
        self.segments = segments
        self.sealing = kernel.sealing(bytes(32), 1)
        self.opening = kernel.opening(bytes(32), ReplayWindow())
        self.counter = 0
        calls = -(-CALLS_FOR_PACKETS // segments)
        self.frames = [memoryview(bytearray(self.frame)) for _ in range(calls)]
        self.trains = [memoryview(bytearray(len(self.frame) + 200 * segments)) for _ in range(calls)]
        self.out = memoryview(bytearray(TRAIN_BYTES))

    def round(self) -> tuple[float, float]:
        """Return microseconds a packet to seal, and to open: medians of calls, since others use the machine."""
        taken: list[tuple[int, int]] = []
        packets = self.segments * len(self.frames)
        for _ in range(PACKETS_A_ROUND // packets):
            for frame in self.frames:
                frame[:] = self.frame
            counters = range(self.counter, self.counter + packets, self.segments)
            self.counter = counters.stop
            given = list(zip(self.frames, self.trains, counters, strict=True))
            began = time.thread_time_ns()
            trains = [self.sealing.seal(frame, train, counter=at, mtu=MTU) for frame, train, at in given]
            sealed = time.thread_time_ns() - began
            _, stride, total = trains[0]
            ends = [*range(stride, total, stride), total]
            spans = array("I", (number for end in ends for number in (end - stride, stride)))
            began = time.thread_time_ns()
            bursts = [self.opening.open(train, spans, self.out, limit=LIMIT) for train in self.trains]
            taken.append((sealed, time.thread_time_ns() - began))
            assert all(len(burst.frames) == 1 and burst.datagrams == self.segments for burst in bursts)
        seal_ns, open_ns = (statistics.median(each) for each in zip(*taken, strict=True))
        return seal_ns / packets / 1_000, open_ns / packets / 1_000


def cipher_round() -> float:
    """Microseconds a packet for the cipher alone, in place."""
    cipher = ChaCha20Poly1305(bytes(32))
    buffer = memoryview(bytearray(MTU + 16))
    packet = buffer[:MTU]
    began = time.thread_time_ns()
    for number in range(PACKETS_A_ROUND):
        cipher.encrypt_into(number.to_bytes(12, "little"), packet, None, buffer)
    return (time.thread_time_ns() - began) / PACKETS_A_ROUND / 1_000


def run(rounds: int) -> Report:
    """Measure; some seconds."""
    report = Report("kernel")
    found = kernels()
    report.add(Figure("cipher_us", "cryptography", [cipher_round() for _ in range(rounds)], "us"))
    for segments in SEGMENTS:
        seats = {name: Seat(kernel, segments) for name, kernel in found.items()}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in seats}
        for _ in range(rounds):
            for name, seat in seats.items():
                taken[name].append(seat.round())
        for name, pairs in taken.items():
            report.add(Figure(f"seal_{segments}_us", name, [seal for seal, _ in pairs], "us"))
        for name, pairs in taken.items():
            report.add(Figure(f"open_{segments}_us", name, [opened for _, opened in pairs], "us"))
    return report
