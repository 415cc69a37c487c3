"""Every timer and limit of WireGuard, under the name that the paper gives it, and the relations between them.

The shape of it: a session may be used for REJECT_AFTER_TIME. Whoever initiated it makes a new one well before that, on
the first packet it sends after REKEY_AFTER_TIME, or as a last chance on a packet it receives shortly before the end. A
handshake message that brings no answer is repeated every REKEY_TIMEOUT, until REKEY_ATTEMPT_TIME is over. Silence is
broken by KEEPALIVE_TIMEOUT: who received data and had none to send says so with an empty packet, and who sent data and
heard nothing for KEEPALIVE_TIMEOUT + REKEY_TIMEOUT concludes that the session is dead and makes a new one.

Source: WireGuard paper, sections 5.3, 6.1 to 6.5; where the paper gives no number, the Linux implementation's.
"""

import msgspec

REKEY_AFTER_TIME_S = 120.0
"""Paper 6.1: the initiator of a session replaces it when it sends after this time."""

REJECT_AFTER_TIME_S = 180.0
"""Paper 6.1: a session older than this neither seals nor opens anything."""

REKEY_AFTER_MESSAGES = 2**60
"""Paper 6.1: replace the session after so many packets. Ordinary data never comes near the counters far above."""

REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
"""Paper 6.1: the last counter a session may use, so that the replay window can never wrap."""

LAST_WILL_MESSAGES = 1
"""Counters below REJECT_AFTER_MESSAGES that ordinary packets leave alone: the topmost one that a receiver accepts is
for a packet that is sealed long before it is sent, if it ever is. One is enough: a session seals one last will, ever.
Nobody misses it: long before, at REKEY_AFTER_MESSAGES, the session has been replaced."""

REKEY_TIMEOUT_S = 5.0
"""Paper 6.1: repeat an unanswered initiation after this time, and never initiate more often by ourselves."""

REKEY_TIMEOUT_JITTER_S = 0.333
"""Paper 6.1: up to a third of a second is added at random, so that two peers do not initiate in step."""

REKEY_ATTEMPT_TIME_S = 90.0
"""Paper 6.1: give up after repeating initiations for so long."""

ICE_REKEY_ATTEMPT_TIME_S = 20.0
"""What to use over ICE: longer than its 15 s verdict, so that ICE names a cut network before the handshake gives up."""

KEEPALIVE_TIMEOUT_S = 10.0
"""Paper 6.5: after receiving data, send something within this time, if only an empty packet."""

COOKIE_SECRET_MAX_AGE_S = 120.0
"""Paper 5.4.7: the secret behind the cookies changes every two minutes."""

COOKIE_LIFETIME_S = COOKIE_SECRET_MAX_AGE_S - 5.0
"""A cookie is used a little shorter than its secret lives (Linux: 5 s less): the margin is the way back and there."""

INITIATIONS_PER_SECOND = 50
"""Consume at most so many initiations of one peer (Linux: 50); each one costs us two Diffie-Hellman computations."""

TIMESTAMP_GRANULARITY_NS = 2**24
"""Timestamps are rounded down to 16.8 ms, so that they tell less about our clock; 1/50 s rounded to a power of two."""

HANDSHAKES_PER_SECOND = 100
"""More handshake messages than this in a second, all peers together, mean "under load": cookies are asked for."""

SOURCE_HANDSHAKES_PER_SECOND = 20
"""Under load, handshakes a second that one proven source address may have (Linux: 20)."""

SOURCE_HANDSHAKE_BURST = 5
"""Under load, handshakes that a source may send at once (Linux: 5)."""

REPLAY_WINDOW_PACKETS = 8192
"""How far behind the highest counter a packet may still arrive; REJECT_AFTER_MESSAGES leaves exactly this much room."""

QUEUED_PACKETS = 128
"""Inner packets kept while a handshake is under way; beyond it the oldest goes (Linux: MAX_STAGED_PACKETS)."""

PADDING_BYTES = 16
"""Paper 5.4.6: inner packets are zero-padded to a multiple of this, so that sizes tell less."""

INNER_MTU_BYTES = 1400
"""Largest inner packet: with 32 bytes of transport and 4 of TURN channel it fits 1500 bytes on IPv6 and on IPv4."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one tunnel. The defaults are WireGuard's; tests shorten them.

    Raises:
        ValueError: the limits contradict each other.
    """

    rekey_after_time_s: float = REKEY_AFTER_TIME_S
    reject_after_time_s: float = REJECT_AFTER_TIME_S
    rekey_after_messages: int = REKEY_AFTER_MESSAGES
    reject_after_messages: int = REJECT_AFTER_MESSAGES
    rekey_timeout_s: float = REKEY_TIMEOUT_S
    rekey_timeout_jitter_s: float = REKEY_TIMEOUT_JITTER_S
    rekey_attempt_time_s: float = REKEY_ATTEMPT_TIME_S
    keepalive_timeout_s: float = KEEPALIVE_TIMEOUT_S
    cookie_lifetime_s: float = COOKIE_LIFETIME_S
    initiations_per_second: int = INITIATIONS_PER_SECOND
    queued_packets: int = QUEUED_PACKETS
    inner_mtu_bytes: int = INNER_MTU_BYTES

    def __post_init__(self) -> None:
        """Refuse relations under which a session could end before its successor exists."""
        relations = {
            "0 < rekey_timeout_s": self.rekey_timeout_s > 0,
            "0 < keepalive_timeout_s": self.keepalive_timeout_s > 0,
            "0 <= rekey_timeout_jitter_s": self.rekey_timeout_jitter_s >= 0,
            "0 < cookie_lifetime_s": self.cookie_lifetime_s > 0,
            "rekey_timeout_s < rekey_attempt_time_s": self.rekey_timeout_s < self.rekey_attempt_time_s,
            "0 < rekey_after_time_s < last_chance_s": 0 < self.rekey_after_time_s < self.last_chance_s,
            "rekey_after_messages < seal_before_messages": (
                0 < self.rekey_after_messages < self.seal_before_messages < REJECT_AFTER_MESSAGES
            ),
            "0 < initiations_per_second": self.initiations_per_second > 0,
            "0 <= queued_packets": self.queued_packets >= 0,
            "1280 <= inner_mtu_bytes": self.inner_mtu_bytes >= 1280,
        }
        broken = [relation for relation, holds in relations.items() if not holds]
        if broken:
            message = f"contradictory limits: {', '.join(broken)}"
            raise ValueError(message)

    @property
    def seal_before_messages(self) -> int:
        """The counter of the last will: ordinary packets stay below it."""
        return self.reject_after_messages - LAST_WILL_MESSAGES

    @property
    def last_chance_s(self) -> float:
        """Session age from which receiving, too, makes the initiator rekey.

        REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT (paper 6.2): late enough that sending had its chance,
        early enough for one lost initiation.
        """
        return self.reject_after_time_s - self.keepalive_timeout_s - self.rekey_timeout_s

    @property
    def silence_s(self) -> float:
        """Data sent and nothing heard for so long means that the session is dead (paper 6.5)."""
        return self.keepalive_timeout_s + self.rekey_timeout_s
