"""The pings of one connection that wait for their answer."""

from __future__ import annotations

import asyncio

from exeunt.runtime import Refused


class Pings:
    """Round trips under way, by the token of each. On the loop only."""

    def __init__(self, peer: str) -> None:
        """`peer` is the other end's name, for messages to people."""
        self._peer = peer
        self._waiting: dict[int, asyncio.Future[float]] = {}

    def begin(self, token: int) -> asyncio.Future[float]:
        """A ping is sent; its round trip is what the future comes to."""
        waiting = self._waiting[token] = asyncio.get_running_loop().create_future()
        return waiting

    def answered(self, token: int, rtt_ms: float) -> None:
        """An answer came; harmless when nobody waits for it any more."""
        waiting = self._waiting.pop(token, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(rtt_ms)

    def give_up(self) -> None:
        """No answer will come: the connection has ended."""
        for waiting in self._waiting.values():
            waiting.cancel()

    async def rtt_ms(self, token: int, waiting: asyncio.Future[float], timeout_s: float) -> float:
        """Wait for an answer. Raises Refused: `timeout`, `not_connected`."""
        try:
            return await asyncio.wait_for(waiting, timeout_s)
        except TimeoutError:
            raise Refused("timeout", f"{self._peer} did not answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            raise Refused("not_connected", f"the connection to {self._peer} ended") from None
        finally:
            self._waiting.pop(token, None)
