"""Traffic to be drawn: flows, frames of them, packets in between, and bytes that are no packets at all."""

from __future__ import annotations

from hypothesis import strategies as st

from .oracle import SIX, VNET, Ip, Tcp, Udp, Whole, frame_of

FLAGS = st.sampled_from([0x10, 0x18, 0x11, 0x19, 0x90, 0x98, 0xD0, 0x02, 0x50, 0x38])
OPTIONS = st.sampled_from([b"", b"\x01\x01\x08\x0a" + bytes(range(8)), bytes(40)])
PAYLOAD = st.one_of(st.integers(0, 40), st.integers(0, 3_000), st.integers(0, 60_000))


def ips() -> st.SearchStrategy[Ip]:
    four = st.builds(
        Ip,
        traffic_class=st.sampled_from([0, 1, 2, 3, 0xB8]),
        ttl=st.integers(1, 255),
        identification=st.sampled_from([0, 1, 0xFFF0, 0xFFFF]),
        fragment=st.sampled_from([0, 0x4000]),
        options=st.sampled_from([b"", b"", b"", bytes(4), bytes(40)]),
    )
    six = st.builds(
        Ip,
        version=st.just(6),
        source=st.just(SIX.source),
        destination=st.just(SIX.destination),
        traffic_class=st.sampled_from([0, 1, 3]),
        ttl=st.integers(1, 255),
        flow_label=st.integers(0, 0xFFFFF),
    )
    return st.one_of(four, six)


def wholes(payloads: st.SearchStrategy[int] = PAYLOAD) -> st.SearchStrategy[Whole]:
    """TCP and UDP with any payload."""

    def content(size: int, first: int) -> bytes:
        return (bytes(range(first, 251)) * (size // 100 + 1))[:size]

    contents = st.builds(content, payloads, st.integers(0, 100))
    tcp = st.builds(
        Tcp,
        ip=ips(),
        sequence=st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32 - 3_000]),
        flags=FLAGS,
        reserved=st.sampled_from([0, 0, 1]),
        options=OPTIONS,
        payload=contents,
    )
    return st.one_of(tcp, st.builds(Udp, ip=ips(), payload=contents))


def frames() -> st.SearchStrategy[bytes]:
    """Nearly right: a frame with some bytes changed, or cut, or with a header of its own."""

    def spoil(frame: bytes, changes: list[tuple[int, int]], end: int, vnet: bytes | None) -> bytes:
        spoiled = bytearray(frame)
        for at, value in changes:
            if spoiled:
                spoiled[at % min(len(spoiled), 90)] = value
        if vnet is not None:
            spoiled[:10] = vnet
        return bytes(spoiled[: len(spoiled) - end])

    header = st.builds(
        VNET.pack,
        st.integers(0, 3),
        st.sampled_from([0, 1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85, 0xFF]),
        st.integers(0, 0xFFFF),
        st.one_of(st.integers(0, 64), st.integers(0, 0xFFFF)),
        st.one_of(st.integers(0, 64), st.integers(0, 0xFFFF)),
        st.one_of(st.integers(0, 64), st.integers(0, 0xFFFF)),
    )
    right = st.builds(frame_of, wholes(st.integers(0, 5_000)), st.integers(1, 1_500))
    change = st.tuples(st.integers(0, 200), st.integers(0, 255))
    return st.one_of(
        st.binary(max_size=200),
        st.builds(spoil, right, st.lists(change, max_size=4), st.integers(0, 60), st.one_of(st.none(), header)),
    )
