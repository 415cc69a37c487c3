"""The native kernel against the pure one, byte for byte, and what it does to callers that break the contract."""

from __future__ import annotations

import gc
import random
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.batch import MAX_DATAGRAMS, TRAIN_BYTES, VNET_BYTES, Kernel, Opened, Sealed, choice, native, pure
from exeunt.actors.wireguard.replay import ReplayWindow

from .hostile import REMOTE_INDEX, Burst, Flow, hostile_burst, hostile_frame

KEY = bytes(range(32))
RANDOM = st.integers(0, 2**32 - 1).map(random.Random)
FRAME = bytes(VNET_BYTES) + b"\x45\0\0\x40" + bytes(60)
"""As short a frame as any: it is sealed into 96 bytes."""
COUNTERS = st.sampled_from((0, 1, 63, 8_190, 2**32 - 3, 2**60))


@pytest.fixture(scope="module")
def compiled() -> native.NativeKernel:
    found = native.load()
    if found is None:
        pytest.skip(f"no native kernel: {native.absent_because()}")
    return found


def sealed(kernel: Kernel, frame: bytes, counter: int, mtu: int, channel: int | None) -> tuple[Sealed, bytes]:
    train = bytearray(TRAIN_BYTES)
    result = kernel.sealing(KEY, REMOTE_INDEX).seal(
        memoryview(bytearray(frame)), memoryview(train), counter=counter, mtu=mtu, channel=channel
    )
    return result, bytes(train[: result.total])


def opened(
    kernel: Kernel, bursts: list[Burst], *, coalesce: bool
) -> tuple[list[tuple[Opened, list[bytes]]], array[int]]:
    window = ReplayWindow()
    opening = kernel.opening(KEY, window)
    results: list[tuple[Opened, list[bytes]]] = []
    for burst in bursts:
        buffer = bytearray(burst.buffer)
        out = bytearray(len(buffer) + VNET_BYTES * len(burst.spans) // 2)
        result = opening.open(memoryview(buffer), burst.spans, memoryview(out), limit=burst.limit, coalesce=coalesce)
        results.append(
            (result._replace(frames=list(result.frames)), [bytes(out[start:end]) for start, end, _ in result.frames])
        )
    return results, window.state


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(RANDOM, COUNTERS, st.sampled_from((0, 576, 1_280, 1_420, 65_535)), st.sampled_from((None, None, 0x4001)))
def test_seals_what_the_pure_kernel_seals(
    compiled: Kernel, rng: random.Random, counter: int, mtu: int, channel: int | None
) -> None:
    frame = bytes(hostile_frame(rng))
    assert sealed(compiled, frame, counter, mtu, channel) == sealed(pure.KERNEL, frame, counter, mtu, channel)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(RANDOM, COUNTERS, st.booleans())
def test_opens_what_the_pure_kernel_opens(compiled: Kernel, rng: random.Random, counter: int, coalesce: bool) -> None:
    bursts = [hostile_burst(rng, KEY, counter + 5 * number) for number in range(3)]
    assert opened(compiled, bursts, coalesce=coalesce) == opened(pure.KERNEL, bursts, coalesce=coalesce)


def test_a_packet_of_every_length_is_summed_and_padded_rightly(compiled: Kernel) -> None:
    flow = Flow(random.Random(1))
    for size in range(200):
        frame = bytes(VNET_BYTES) + bytes(flow.packet(size))
        assert sealed(compiled, frame, size, 1_280, None) == sealed(pure.KERNEL, frame, size, 1_280, None)


def test_an_index_and_a_channel_are_of_their_sizes(compiled: Kernel) -> None:
    with pytest.raises(OverflowError):
        compiled.sealing(KEY, 2**32)
    with pytest.raises(ValueError, match="channel"):
        sealed(compiled, FRAME, 0, 1_280, 2**16)


def test_no_counter_wraps_around(compiled: Kernel) -> None:
    assert sealed(compiled, FRAME, 2**64 - 2, 1_280, None)[0].datagrams == 1
    for counter in (2**64 - 1, 2**64, -1):
        with pytest.raises(OverflowError):
            sealed(compiled, FRAME, counter, 1_280, None)


@pytest.mark.parametrize("key", [b"", KEY[:-1], KEY + b"!"])
def test_a_key_has_32_bytes(compiled: Kernel, key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        compiled.sealing(key, 1)
    with pytest.raises(ValueError, match="32 bytes"):
        compiled.opening(key, ReplayWindow())


def test_a_train_that_is_too_short_is_not_begun(compiled: Kernel) -> None:
    train = bytearray(80)
    with pytest.raises(ValueError, match="too little room"):
        compiled.sealing(KEY, 1).seal(memoryview(bytearray(FRAME)), memoryview(train), counter=0, mtu=1_280)
    assert train == bytes(80)


def test_nothing_is_sealed_into_itself(compiled: Kernel) -> None:
    both = memoryview(bytearray(FRAME) + bytes(200))
    with pytest.raises(ValueError, match="itself"):
        compiled.sealing(KEY, 1).seal(both[: len(FRAME)], both[10:], counter=0, mtu=1_280)


@pytest.mark.parametrize(
    "spans",
    [[0], [0, 31], [0, 65], [1, 64], [33, 32], [2**32 - 32, 32], [0, 2**32 - 1], [0, 32] * (MAX_DATAGRAMS + 1)],
    ids=str,
)
def test_spans_stay_inside_the_buffer(compiled: Kernel, spans: list[int]) -> None:
    opening = compiled.opening(KEY, ReplayWindow())
    out = memoryview(bytearray(20_000))
    with pytest.raises(ValueError, match="span"):
        opening.open(memoryview(bytearray(64)), array("I", spans), out, limit=1)


def test_spans_are_of_32_bits(compiled: Kernel) -> None:
    opening = compiled.opening(KEY, ReplayWindow())
    with pytest.raises(ValueError, match="spans"):
        opening.open(memoryview(bytearray(64)), array("Q", [0, 32]), memoryview(bytearray(64)), limit=1)


def test_out_has_room_and_is_apart(compiled: Kernel) -> None:
    opening = compiled.opening(KEY, ReplayWindow())
    buffer, spans = bytearray(64), array("I", [0, 64])
    with pytest.raises(ValueError, match="out"):
        opening.open(memoryview(buffer), spans, memoryview(bytearray(41)), limit=1)
    with pytest.raises(ValueError, match="out"):
        opening.open(memoryview(buffer), spans, memoryview(buffer)[1:], limit=1)
    assert opening.open(memoryview(buffer), spans, memoryview(bytearray(42)), limit=1).forged == 1


@pytest.mark.parametrize("state", [array("Q", [0] * 129), array("I", [0] * 260), array("Q")], ids=repr)
def test_a_window_has_its_size(compiled: Kernel, state: array[int]) -> None:
    window = ReplayWindow()
    window.state = state
    with pytest.raises(ValueError, match="state"):
        compiled.opening(KEY, window)


def test_a_window_is_kept_for_as_long_as_its_key(compiled: Kernel) -> None:
    opening = compiled.opening(KEY, ReplayWindow())
    gc.collect()
    burst = hostile_burst(random.Random(5), KEY, 0)
    out = memoryview(bytearray(len(burst.buffer) + VNET_BYTES * len(burst.spans)))
    first = opening.open(memoryview(bytearray(burst.buffer)), burst.spans, out, limit=burst.limit)
    again = opening.open(memoryview(bytearray(burst.buffer)), burst.spans, out, limit=burst.limit)
    assert first.datagrams > 0
    assert again.datagrams == 0
    assert again.replayed == first.datagrams + first.replayed


def test_keys_come_and_go_without_a_trace(compiled: Kernel) -> None:
    """A key has a reference to its window and to its class, and gives both back."""
    window = ReplayWindow()
    state, kind = sys.getrefcount(window.state), type(compiled.opening(KEY, window))
    before = sys.getrefcount(kind)
    for _ in range(100):
        compiled.opening(KEY, window)
        compiled.sealing(KEY, 1)
    after = sys.getrefcount(window.state), sys.getrefcount(kind)
    assert after == (state, before)
    window.state.append(1)  # nobody holds its memory


@dataclass
class Compiled:
    """What a module has."""

    Sealing: Callable[..., object]
    Opening: Callable[..., object] = ReplayWindow
    LIBCRYPTO: str = "OpenSSL 3.9.9 1 Jan 2030"
    index_of: Callable[..., object] = repr


class SealsNothing:
    def seal(self, *_: object, **__: object) -> Sealed:
        return Sealed(1, 96, 96)


def seals_nothing(*_: object) -> SealsNothing:
    return SealsNothing()


def refuses(*_: object) -> object:
    raise RuntimeError("libcrypto refuses ChaCha20-Poly1305")


@pytest.mark.parametrize("sealing", [seals_nothing, refuses])
def test_a_cipher_that_errs_is_not_used(sealing: Callable[..., object]) -> None:
    module = cast("ModuleType", Compiled(sealing))
    assert native.find(lambda: module) == "libcrypto 3.9.9 does not seal as it should"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("no module"), "it has not been built"),
        (ImportError("there is no libcrypto"), "there is no libcrypto"),
    ],
)
def test_what_is_missing_is_a_reason(error: ImportError, reason: str) -> None:
    def compiled() -> ModuleType:
        raise error

    assert native.find(compiled) == reason


def test_the_choice_is_the_native_kernel_unless_it_is_turned_off(compiled: native.NativeKernel) -> None:
    assert choice.decide(None) == choice.Choice(compiled, f"libcrypto {compiled.libcrypto}")
    assert choice.decide("1").kernel is compiled
    assert choice.decide("0") == choice.Choice(pure.KERNEL, "EXEUNT_NATIVE=0")


def test_the_choice_is_made_once() -> None:
    assert choice.choose() is choice.choose()
    assert choice.choose_why()
