"""What a kernel does for the data path; there are several, and each does the same to the byte.

A *frame* is what the TUN device gives and takes when it has `IFF_VNET_HDR`: a `virtio_net_hdr` of 10 bytes in the
host's byte order (flags u8, gso_type u8, hdr_len, gso_size, csum_start, csum_offset u16), then one IP packet. With a
gso_type the packet is up to 64 kB and stands for many: TCP segments or UDP datagrams of one flow, `gso_size` bytes of
payload each, the last one maybe shorter (virtio 1.2 section 5.1.6, Linux `include/uapi/linux/virtio_net.h`).

A *train* is a run of datagrams in one buffer, each `stride` bytes after the one before, the last one maybe shorter:
what `UDP_SEGMENT` sends with one call and what `UDP_GRO` gives (udp(7)). A *span* is one datagram's place in a buffer.

*Sealing* a frame cuts it into the packets that it stands for, completes their lengths, ids, sequence numbers and
checksums, pads each (WireGuard paper 5.4.6) and seals it as a transport message under consecutive counters. *Opening*
a burst opens each datagram where it lies, refuses replays, and merges neighbours of one flow into frames again; a
datagram that is forged or damaged costs the others nothing.

Nothing here allocates what grows with the traffic: whoever calls owns the buffers. All calls come from one thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from .lanes import Lanes

VNET_BYTES: Final = 10
"""`struct virtio_net_hdr`, before each frame."""
MAX_FRAME_BYTES: Final = VNET_BYTES + 65_535
MAX_DATAGRAMS: Final = 1_024
"""A frame that stands for more packets is malformed: the buffers are made for so many, and a burst has no more."""
TRAIN_BYTES: Final = 65_535 + MAX_DATAGRAMS * (60 + 60 + 15 + 36)
"""Room for the train of any frame: each packet's headers and padding, and 36 bytes around it (channel, header, tag)."""
OUT_BYTES_EACH: Final = VNET_BYTES
"""`out` has room for the burst and so much more for each of its datagrams."""


class Sealed(NamedTuple):
    """A train."""

    datagrams: int
    """None at all: the frame was malformed."""
    stride: int
    """Bytes from one datagram to the next, whatever stands before each included."""
    total: int
    """Bytes of the train."""


class Opened(NamedTuple):
    """What a burst brought."""

    frames: Sequence[tuple[int, int, int]]
    """(start, end, packets) in `out`, a flow in order of arrival. At `start` is the header, then the packet."""
    datagrams: int
    """Authentic and fresh ones, keepalives and those with a malformed packet included."""
    octets: int
    """Bytes of those datagrams."""
    keepalives: int
    replayed: int
    forged: int
    malformed: int
    """Authentic, but there was no IP packet in it."""
    over_limit: int
    """Their counter was not below the limit."""


class Window(Protocol):
    """A replay window whose memory a kernel shares (RFC 6479)."""

    state: array[int]
    """'Q': the highest counter marked plus one, then the ring of 64-bit words; see `wireguard.replay`."""


class Sealing(Protocol):
    """Seals under one key."""

    def seal(
        self, frame: memoryview, train: memoryview, *, counter: int, mtu: int, channel: int | None = None
    ) -> Sealed:
        """Turn a frame into a train; the datagrams use `counter` and those after it, one each.

        `frame` is overwritten as is convenient; `train` has room for `TRAIN_BYTES`. A packet is padded to a multiple of
        16 bytes, but not beyond `mtu`. With a `channel` a ChannelData header (RFC 8656 section 12.4) stands before each
        datagram, without padding after it.
        """
        ...

    def seal_each(
        self,
        buffer: memoryview,
        spans: array[int],
        train: memoryview,
        *,
        counter: int,
        mtu: int,
        channel: int | None = None,
    ) -> Sequence[Sealed]:
        """Turn the frames at these spans of a buffer ('I', at most 1,024) into trains, one right behind the other.

        They are as `seal` would make them. After the first it stops where less than `TRAIN_BYTES` are left: then the
        result is shorter than the spans are.
        """
        ...


class Opening(Protocol):
    """Opens under one key, each counter once."""

    def open(
        self, buffer: memoryview, spans: array[int], out: memoryview, *, limit: int, coalesce: bool = True
    ) -> Opened:
        """Open the datagrams at `spans` ('I': offset, length, offset, length…), which are transport messages for this
        key of at least 32 bytes; their type and receiver index have been looked at. Counters are below `limit`.

        `buffer` is overwritten. With `coalesce`, packets are merged that the device may be given as one: of one TCP or
        UDP flow, one after another, same TTL, traffic class (ECN with it), flags and options, and with right checksums;
        else each packet is a frame.
        """
        ...


Received: TypeAlias = tuple[int, int, int, list[tuple[bytes, bytes, bytes, bytes]]]
"""Where the buffer is free, how many calls of the system found something, the `errno` of the last one (0: it found
something, too), and runs of datagrams that follow one another and are alike: their first eight bytes where these are a
data message's to one session, or of one in a relay's channel (else nothing, and the run is one datagram), their spans
('I'), the congestion mark and the local address, and the source: port, scope, address."""
Receive: TypeAlias = Callable[[int, memoryview, int, int], Received]
"""Read from a socket's descriptor into a buffer, from there on, so many times at most, or until it is empty or there is
no room for a train of 65,535 bytes."""

ReadFrames: TypeAlias = Callable[[int, memoryview, int, int], tuple[bytes, int]]
"""Read frames from a TUN descriptor into a buffer, one right behind the other, so many at most, while one of any size
fits; where the device puts no header before each, room of so many bytes is left for it, and zeroed. Return their spans
('I'), and the `errno` after the last (0: there may be more; -1: the end)."""


class Kernel(Protocol):
    """A way to do it."""

    name: str
    """"pure" or "native"."""
    receive: Receive | None
    """A fast way to read datagrams, where it has one."""
    read_frames: ReadFrames | None
    """And one to read frames."""
    lanes: Callable[[], Lanes] | None
    """And a way to have ordinary packets not come by Python at all."""

    def index_of(self, buffer: memoryview, spans: array[int], /) -> int | None:
        """Return the receiver index that all these datagrams name, if each is a transport message of at least 32 bytes,
        they name the same, and they are not more than one `Opening.open` takes; else None.
        """
        ...

    def sealing(self, key: bytes, remote_index: int) -> Sealing:
        """Return what seals to the peer that knows the session as `remote_index`, under a key of 32 bytes."""
        ...

    def opening(self, key: bytes, window: Window) -> Opening:
        """Return what opens under a key of 32 bytes, and marks in the window what it opened."""
        ...
