"""Checks of every sort: right ones, some that are nearly right, authentic ones that say something else, and noise."""

from __future__ import annotations

import random
from typing import Final

from exeunt.actors.ice import Credentials
from exeunt.actors.ice.packing import Packing, Role

_CHARACTERS: Final = "abcXYZ019+/"


def hostile_credentials(rng: random.Random) -> tuple[Credentials, Credentials]:
    """Both ends': ours, and the peer's."""
    (ours, our_password), (theirs, their_password) = (
        (_text(rng, rng.choice((4, 8, 8, 30))), _text(rng, rng.choice((22, 24, 64)))) for _ in range(2)
    )
    return (
        Credentials(
            local_username=ours, local_password=our_password, remote_username=theirs, remote_password=their_password
        ),
        Credentials(
            local_username=theirs, local_password=their_password, remote_username=ours, remote_password=our_password
        ),
    )


def hostile_check(rng: random.Random, peer: Credentials, role: Role) -> bytes:
    """What may come where checks of this peer, in this role, are expected."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.choice((0, 1, 19, 20, 52, 100)))
    other = Role(bool(rng.randrange(2)), rng.getrandbits(64)) if kind == 1 else role
    nominate = kind != 2
    check = bytearray(Packing(peer).request(rng.randbytes(12), other, nominate=nominate))
    if kind == 3:
        check[rng.randrange(len(check))] ^= 1 << rng.randrange(8)
    elif kind == 4:  # a header that fits any length
        check = check[: rng.randrange(20, len(check))] + rng.randbytes(rng.choice((0, 1, 4)))
        check[2:4] = (len(check) - 20).to_bytes(2, "big")
    elif kind == 5:  # a USERNAME of any length
        check[22:24] = rng.choice((0, 1, 13, 255, 65_535)).to_bytes(2, "big")
    return bytes(check)


def _text(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(_CHARACTERS) for _ in range(length))
