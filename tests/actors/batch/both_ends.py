"""A kernel between bytes: what goes in and out of its buffers, as lists."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from exeunt.actors.batch import OUT_BYTES_EACH, TRAIN_BYTES, Kernel, Opened, Sealed
from exeunt.actors.wireguard.replay import ReplayWindow
from exeunt.actors.wireguard.timing import REJECT_AFTER_MESSAGES

KEY = bytes(range(32))
INDEX = 0xA1B2C3D4


def seal(
    kernel: Kernel, frame: bytes, *, counter: int = 0, mtu: int = 1420, channel: int | None = None
) -> tuple[list[bytes], Sealed]:
    """The datagrams that a frame becomes. The train is dirty before and is looked at behind its end."""
    train = bytearray(b"\xaa" * (TRAIN_BYTES + 64))
    room = memoryview(train)[:TRAIN_BYTES]
    done = kernel.sealing(KEY, INDEX).seal(
        memoryview(bytearray(frame)), room, counter=counter, mtu=mtu, channel=channel
    )
    assert train[TRAIN_BYTES:] == b"\xaa" * 64
    datagrams = [bytes(train[at : min(at + done.stride, done.total)]) for at in range(0, done.total, done.stride or 1)]
    assert len(datagrams) == done.datagrams
    return datagrams, done


@dataclass
class Receiver:
    """One key's opener."""

    kernel: Kernel
    window: ReplayWindow = field(default_factory=ReplayWindow)

    def __post_init__(self) -> None:
        self.opening = self.kernel.opening(KEY, self.window)

    def open(
        self, datagrams: list[bytes], *, limit: int = REJECT_AFTER_MESSAGES, coalesce: bool = True, gap: int = 0
    ) -> tuple[list[tuple[bytes, int]], Opened]:
        """The frames, with how many packets each has. Between datagrams there is a gap."""
        spans = array("I")
        buffer = bytearray()
        for datagram in datagrams:
            spans.extend((len(buffer), len(datagram)))
            buffer += datagram + bytes(gap)
        size = len(buffer) + OUT_BYTES_EACH * len(datagrams)
        out = bytearray(b"\xaa" * (size + 64))
        done = self.opening.open(memoryview(buffer), spans, memoryview(out)[:size], limit=limit, coalesce=coalesce)
        assert out[size:] == b"\xaa" * 64
        return [(bytes(out[start:end]), packets) for start, end, packets in done.frames], done
