"""With wireguard-go, many packets at once: a kernel cuts and seals the device's frames, opens and merges bursts."""

from __future__ import annotations

import pytest
from tests.interop.wireguard.cable import Cable
from tests.interop.wireguard.test_sessions import HASTY
from tests.interop.wireguard.traffic import both_ways, carry, open_stream

from exeunt.actors.batch import Kernel, native
from exeunt.actors.batch.pure import PureKernel

MEGABYTE = 1_000_000
COMPILED = native.load()
KERNELS = pytest.mark.parametrize(
    "kernel", [PureKernel(), *([] if COMPILED is None else [COMPILED])], ids=lambda one: one.name
)


@KERNELS
@pytest.mark.parametrize("initiator", [True, False], ids=["we initiate", "they initiate"])
async def test_streams_arrive_as_they_were_sent(cable: Cable, kernel: Kernel, initiator: bool) -> None:
    """Over both families. A wrong checksum or length would cost a packet, and be seen in the far kernel's counts."""
    ours = cable.ours(initiator=initiator, knows=initiator, kernel=kernel)
    cable.introduce(ours, knows=not initiator)
    near, far = (cable.near, cable.far) if initiator else (cable.far, cable.near)
    for address in cable.THEIR_INNER if initiator else cable.OUR_INNER:
        await both_ways(near, far, address, 4 * MEGABYTE)
    assert len(ours.handshakes) == 1
    assert ours.merged > 0
    assert not any(ours.tunnel.drops.values()), ours.describe()
    assert cable.bad_segments() == 0


@KERNELS
async def test_sessions_are_renewed_under_traffic(cable: Cable, kernel: Kernel) -> None:
    ours = cable.ours(initiator=True, limits=HASTY, kernel=kernel)
    cable.introduce(ours)
    near, far = await open_stream(cable.near, cable.far, cable.THEIR_INNER[0])
    with near, far:
        rounds = 0
        while len(ours.handshakes) < 4:
            await carry(near, far, MEGABYTE, str(rounds))
            await carry(far, near, MEGABYTE, str(rounds))
            rounds += 1
            assert rounds < 500, ours.describe()
    assert not any(ours.tunnel.drops.values()), ours.describe()
    assert cable.bad_segments() == 0
