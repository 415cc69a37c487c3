"""A peers worker is restarted under traffic: a download runs through it, and nobody records an ending."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import pytest
from tests.system.test_last_will import connect, said, worker

from exeunt.clients.demo.resource import content
from exeunt.clients.demo.scenes import current_peer
from exeunt.clients.demo.stage import Player, Stage

RaiseCurtain = Callable[..., Stage]


class Downloads:
    """One download after another over one TCP connection that nobody gives up, on a thread of its own."""

    SIZE = 5_000_000

    def __init__(self, stage: Stage) -> None:
        self.count = 0
        self.longest_gap_s = 0.0
        self._line = stage.open_socket(5.0)
        self._line.settimeout(30)
        self._enough = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        expected = content(self.SIZE)
        with contextlib.closing(self._line):
            try:
                while not self._enough.is_set():
                    received, gap_s = fetch(self._line, self.SIZE)
                    assert received == expected
                    self.longest_gap_s = max(self.longest_gap_s, gap_s)
                    self.count += 1
            except Exception as error:  # noqa: BLE001 - it is told where somebody hears it
                self._failure = error

    def finish(self) -> None:
        before = self.count
        deadline = time.monotonic() + 60
        while self.count < before + 2 and self._failure is None:  # one that began after all that was done
            assert time.monotonic() < deadline, "the download hangs"
            time.sleep(0.02)
        self._enough.set()
        self._thread.join()
        assert self._failure is None, self._failure


def fetch(line: socket.socket, size: int) -> tuple[bytes, float]:
    """Ask for a file, and return it with the longest time, from then on, without any byte of it."""
    longest_gap_s, last_at = 0.0, time.monotonic()
    line.sendall(f"GET /{size} HTTP/1.1\r\nHost: files\r\n\r\n".encode())
    received = bytearray()
    body_at = -1
    while body_at < 0 or len(received) - body_at < size:
        more = line.recv(1 << 18)
        assert more, "the connection was closed"
        now = time.monotonic()
        longest_gap_s, last_at = max(longest_gap_s, now - last_at), now
        received += more
        if body_at < 0 and b"\r\n\r\n" in received:
            body_at = received.index(b"\r\n\r\n") + 4
    return bytes(received[body_at:]), longest_gap_s


def restart(player: Player, name: str = "peers-1") -> tuple[int, int]:
    """Restart a worker; return its pid before and after."""
    before = worker(player, name)
    player.ask("restart", {"target": name})
    player.wait_for("successor", lambda: worker(player, name) not in (0, before))
    return before, worker(player, name)


def handshake_age_s(stage: Stage) -> float:
    age = current_peer(stage)["handshake_age_s"]
    assert isinstance(age, float)
    return age


@pytest.mark.parametrize("side", ["client", "gateway"])
def test_a_download_runs_through_a_restart(stage: Stage, side: str) -> None:
    connect(stage)
    player = stage.client if side == "client" else stage.gateways[0]
    connection = current_peer(stage)["connection"]
    began = time.monotonic() - handshake_age_s(stage)
    downloads = Downloads(stage)
    for _ in range(3):
        before, after = restart(player)
        assert before != after
    downloads.finish()
    assert stage.client.endings() == stage.gateways[0].endings() == [], "\n".join(said(player))
    print(f"\nthree restarts of the {side}'s peers-1: no byte for {downloads.longest_gap_s:.2f} s at most")
    assert current_peer(stage)["connection"] == connection
    assert time.monotonic() - handshake_age_s(stage) == pytest.approx(began, abs=0.5), "no handshake was needed"
    assert stage.client.endings() == stage.gateways[0].endings() == []
    stage.client.leave("signed_out")
    for one in (stage.client, stage.gateways[0]):
        (ending,) = one.endings()
        assert (ending.cause, ending.acknowledged) == ("signed_out", True)


@pytest.mark.parametrize("side", ["client", "gateway"])
def test_over_a_relay_the_session_goes_on_over_another_allocation(raise_curtain: RaiseCurtain, side: str) -> None:
    """What is sent until the portal has had a path found anew is lost, and TCP says it again."""
    stage = raise_curtain(client_nat="symmetric", gateway_nat="symmetric")
    connect(stage)
    player = stage.client if side == "client" else stage.gateways[0]
    connection = current_peer(stage)["connection"]
    assert current_peer(stage)["path"] == "relay"
    with contextlib.closing(stage.open_socket(5.0)) as line:
        line.settimeout(20)
        fetch(line, 1000)
        restart(player)
        began = time.monotonic()
        assert fetch(line, 1_000_000)[0] == content(1_000_000)  # on the same TCP connection
        print(f"\nrelayed, the {side}'s peers-1 restarted: a megabyte {time.monotonic() - began:.1f} s later")
    assert current_peer(stage)["connection"] == connection
    assert stage.client.endings() == stage.gateways[0].endings() == []
    stage.client.leave("signed_out")
    assert [(one.cause, one.path) for one in stage.gateways[0].endings()] == [("signed_out", "relay")]
