"""What exeunt measures, as families of metrics.

Endings are counted from the record, so they only grow and survive the programs; everything else is what running
programs answer at this moment, and is missing for those that do not run. Labels are bounded: instances, workers, peers
and causes, never connections.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from .contract import Ending, Status
from .exposition import Family, Histogram, Tally
from .inspection_contract import ActorRow, Wakeups
from .record import KeptEnding

DETECTION_BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 16.5, 30.0)
"""Around what is promised: a round trip, the last will's 0.25 s, a death's 2 s, a cut network's 15 s ± 1.5 s."""


class ProgramFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one running program answered; None for what it does not offer."""

    instance: str
    program: str
    version: str
    status: Status | None = None
    actors: Sequence[ActorRow] | None = None
    dead_letters: Mapping[str, int] | None = None
    """By worker, over all its lives."""
    counters: Mapping[str, int] | None = None
    wakeups: Sequence[Wakeups] | None = None


def families(kept: Iterable[KeptEnding], damaged_lines: int, programs: Sequence[ProgramFacts]) -> list[Family]:
    """All families, in the order in which they are printed."""
    damaged = Tally("exeunt_endings_damaged_lines", "gauge", "Lines of the record that hold no ending.")
    damaged.add(damaged_lines)
    return [*_endings(list(kept)), damaged.family(), *_programs(programs), *_peers(programs), *_actors(programs)]


def _endings(kept: Sequence[KeptEnding]) -> list[Family]:
    endings = Tally("exeunt_endings_total", "counter", "Ended connections, by cause, as this side recorded them.")
    detection = Histogram(
        "exeunt_ending_detection_seconds", "From the event to knowing of the ending.", DETECTION_BOUNDS_S
    )
    goodbyes = Tally("exeunt_goodbyes_sent_total", "counter", "Goodbyes sent, repetitions too.")
    received = Tally("exeunt_ended_received_bytes_total", "counter", "What ended connections had received.")
    sent = Tally("exeunt_ended_sent_bytes_total", "counter", "What ended connections had sent.")
    for instance, one in kept:
        endings.add(
            1,
            instance=instance,
            side=one.side,
            cause=one.cause,
            initiated_by=one.initiated_by,
            acknowledged=_acknowledged(one),
        )
        if one.detection_ms is not None:
            detection.observe(one.detection_ms / 1000, cause=one.cause)
        said = one.evidence.get("goodbyes_sent")
        goodbyes.add(said if isinstance(said, int) else None, instance=instance, side=one.side)
        received.add(one.rx_bytes, instance=instance, side=one.side)
        sent.add(one.tx_bytes, instance=instance, side=one.side)
    return [endings.family(), detection.family(), goodbyes.family(), received.family(), sent.family()]


def _acknowledged(ending: Ending) -> str:
    return {True: "yes", False: "no", None: "not_due"}[ending.acknowledged]


def _programs(programs: Sequence[ProgramFacts]) -> list[Family]:
    up = Tally("exeunt_up", "gauge", "Programs that run and answer.")
    session = Tally("exeunt_session_state", "gauge", "The state that a session is in.")
    resources = Tally("exeunt_resources", "gauge", "Resources, by state.")
    counters = Tally("exeunt_counted_total", "counter", "What a program counts by itself, mostly what it dropped.")
    letters = Tally("exeunt_dead_letters_total", "counter", "Messages that nobody handled.")
    wakeups = Tally("exeunt_wakeups_total", "counter", "What woke a worker's event loop, by cause.")
    for one in programs:
        up.add(1, instance=one.instance, program=one.program, version=one.version)
        if one.status is not None:
            session.add(1, instance=one.instance, state=one.status.session)
            for resource in one.status.resources:
                resources.add(1, instance=one.instance, state=resource.state or "unknown")
        for what, count in (one.counters or {}).items():
            counters.add(count, instance=one.instance, what=what)
        for worker, count in (one.dead_letters or {}).items():
            letters.add(count, instance=one.instance, worker=worker)
        for woken in one.wakeups or ():
            for cause, count in woken.counts.items():
                wakeups.add(count, instance=one.instance, worker=woken.worker, cause=cause)
    return [each.family() for each in (up, session, resources, counters, letters, wakeups)]


def _peers(programs: Sequence[ProgramFacts]) -> list[Family]:
    peers = Tally("exeunt_peers", "gauge", "Connections that are up or coming up, by path.")
    handshake = Tally("exeunt_peer_handshake_age_seconds", "gauge", "Since the last handshake with a peer.")
    handshakes = Tally("exeunt_peer_handshakes", "gauge", "Handshakes in the connections with a peer that are up.")
    rtt = Tally("exeunt_peer_rtt_seconds", "gauge", "The last round trip that was measured with a peer.")
    received = Tally("exeunt_peer_received_bytes", "gauge", "Received in the connections with a peer that are up.")
    sent = Tally("exeunt_peer_sent_bytes", "gauge", "Sent in the connections with a peer that are up.")
    for one in programs:
        if one.status is None:
            continue
        for path in ("direct", "relay"):
            peers.add(0, instance=one.instance, path=path)  # a series that comes and goes is hard to watch
        for peer in one.status.peers:
            peers.add(1, instance=one.instance, path=peer.path or "none")
            received.add(peer.rx_bytes, instance=one.instance, peer=peer.peer)
            sent.add(peer.tx_bytes, instance=one.instance, peer=peer.peer)
            handshakes.add(peer.handshakes, instance=one.instance, peer=peer.peer)
        for peer in {peer.peer: peer for peer in one.status.peers}.values():
            handshake.add(peer.handshake_age_s, instance=one.instance, peer=peer.peer)
            rtt.add(None if peer.rtt_ms is None else peer.rtt_ms / 1000, instance=one.instance, peer=peer.peer)
    return [each.family() for each in (peers, handshake, handshakes, rtt, received, sent)]


def _actors(programs: Sequence[ProgramFacts]) -> list[Family]:
    workers = Tally("exeunt_worker_processes", "gauge", "Processes that host actors, the supervisor's too.")
    memory = Tally("exeunt_worker_resident_memory_bytes", "gauge", "Resident memory of a worker's process.")
    cpu = Tally("exeunt_worker_cpu_ratio", "gauge", "CPU time over time since the last question; 1 is a whole core.")
    actors = Tally("exeunt_actors", "gauge", "Actors, by worker and state.")
    waiting = Tally("exeunt_mailbox_messages", "gauge", "Messages that wait in mailboxes.")
    handled = Tally("exeunt_messages_handled_total", "counter", "Messages that the living actors have handled.")
    restarts = Tally("exeunt_actor_restarts_total", "counter", "Restarts of the actors that are kept.")
    for one in programs:
        rows = one.actors or ()
        for pid in {row.pid for row in rows if row.pid is not None}:
            row = next(row for row in rows if row.pid == pid)
            workers.add(1, instance=one.instance)
            memory.add(row.rss_bytes, instance=one.instance, worker=row.worker)
            cpu.add(
                None if row.cpu_percent is None else row.cpu_percent / 100, instance=one.instance, worker=row.worker
            )
        for row in rows:
            where = {"instance": one.instance, "worker": row.worker}
            actors.add(1, **where, state=row.state)
            waiting.add(row.mailbox, **where)
            handled.add(row.handled_total, **where)
            restarts.add(row.restarts, **where)
    return [one.family() for one in (workers, memory, cpu, actors, waiting, handled, restarts)]
