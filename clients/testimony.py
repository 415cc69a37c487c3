"""What is known of an ending besides one side's own record, and whether two sides tell the same."""

import msgspec

from exeunt.actors.endings import Initiator
from exeunt.actors.portal.reports import Observation

from .contract_portal import ReportedEnding


class Testimony(msgspec.Struct, frozen=True, kw_only=True):
    """What the other end and the portal say."""

    other: ReportedEnding | None = None
    """How the other end says that it ended."""
    told_by: str | None = None
    """Who told it: `portal`, or `record` for the other end's own."""
    observations: tuple[Observation, ...] = ()
    """What the portal saw, oldest first."""
    portal_answered: bool = False


class Claim(msgspec.Struct, frozen=True):
    """What one end says in a word each."""

    cause: str
    initiated_by: str | None = None


def agreement(one: Claim | None, other: Claim | None) -> str:
    """`agree`, `differ`, or `one_side_only`.

    Two ends agree if they name the same cause, and not each the other as who ended it. Both may say "us": they left at
    the same moment.
    """
    if one is None or other is None:
        return "one_side_only"
    each_blames_the_other = one.initiated_by == other.initiated_by == Initiator.PEER
    return "agree" if one.cause == other.cause and not each_blames_the_other else "differ"
