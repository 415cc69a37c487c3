"""Answers that are given later, by a task beside the actor."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from .envelope import Message
from .errors import Failure, UnknownMessage, to_failure


class Later:
    """Return it from a handler to answer an ask later: the actor goes on, the ask ends as `work` ends.

    `work` runs as a task beside the actor, on its loop; it is cancelled, and the ask fails with `ActorDead`, when the
    actor ends first, and it is cancelled when the asker gives up. For waiting only: what changes the actor's state
    belongs into handlers.
    """

    def __init__(self, work: Coroutine[Any, Any, Message | None]) -> None:
        self.work = work


def checked(answer: Any) -> Message | Later | None:
    """Return what a handler returned if that can be an answer. Raises UnknownMessage if not."""
    if answer is None or isinstance(answer, (Message, Later)):
        return answer
    raise UnknownMessage(f"a handler answers with a Message or None, not {type(answer).__name__}")


async def outcome(work: Coroutine[Any, Any, Message | None]) -> Message | Failure | None:
    """Run to an answer or a failure as data: even a SystemExit must not reach the loop, which would end with it."""
    try:
        answer = checked(await work)
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the asker's answer
        return to_failure(error)
    return answer if not isinstance(answer, Later) else to_failure(UnknownMessage("a Later answers with a Message"))
