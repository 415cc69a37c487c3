"""The first step of every leave: tell the portal, so that nobody is sent to us any more. It must not hold us up."""

from __future__ import annotations

import logging

from exeunt.runtime import ExeuntError, Ref

from .portal.actor_messages import PortalLeave, PortalLeft
from .timing import PORTAL_LEAVE_S

logger = logging.getLogger(__name__)

_HOP_S = 0.1  # the link answers by its own deadline; this is for the way there and back


async def leave_portal(link: Ref, reason: str) -> None:
    """Say goodbye to the portal; return when it knows, or when that took too long. Never raises."""
    message = PortalLeave(reason, PORTAL_LEAVE_S)
    try:
        left: PortalLeft = await link.ask(message, timeout_s=PORTAL_LEAVE_S + _HOP_S)
    except ExeuntError as error:
        logger.info("The portal could not be told", extra={"event": "portal_untold", "error": str(error)})
        return
    logger.info(
        "The portal knows that we leave" if left.acknowledged else "The portal did not answer in time",
        extra={"event": "portal_left", "acknowledged": left.acknowledged},
    )
