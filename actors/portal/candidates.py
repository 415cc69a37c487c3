"""Several messages with candidates of one connection as one, for a link that is down or an end that is away."""

import msgspec

from .messages import MAX_CANDIDATES, IceCandidates


def merged(before: IceCandidates | None, later: IceCandidates) -> IceCandidates:
    """What the two say together. Of the older generation's candidates nothing is left once there is a newer one."""
    if before is None or before.generation < later.generation:
        return later
    if before.generation > later.generation:
        return before
    standing = [candidate for candidate in before.candidates if candidate not in later.withdrawn]
    gone = [candidate for candidate in before.withdrawn if candidate not in later.candidates]
    return msgspec.structs.replace(
        later,
        candidates=tuple(dict.fromkeys((*standing, *later.candidates)))[:MAX_CANDIDATES],
        withdrawn=tuple(dict.fromkeys((*gone, *later.withdrawn)))[:MAX_CANDIDATES],
        end=before.end or later.end,
    )
