"""A connection that has been idle for long enough that its gateway's session rests (`ice.rest`), with real programs."""

from __future__ import annotations

import time

import pytest
from tests.endings.expected import LOST
from tests.system.test_last_will import connect, ending_of, took_ms
from tests.system.test_live_restart import restart

from exeunt.clients.demo.scenes import current_peer
from exeunt.clients.demo.stage import Stage

AT_REST_S = 22.0
"""Checks of its own that nobody has answered are forgotten 16 s after the last; then the next of the client comes."""
FORGIVEN_MS = 400.0
"""A machine that has much to do."""


@pytest.mark.timeout(120)
def test_a_cut_is_named_in_time_though_the_session_rests(stage: Stage) -> None:
    connect(stage)
    connection = current_peer(stage)["connection"]
    time.sleep(AT_REST_S)
    for player in (stage.client, stage.gateways[0]):
        (peer,) = player.status()["peers"]
        assert peer["last_seen_s_ago"] < 3.5, player.name
    cut_at = time.time()
    stage.lab.cut(stage.lab.client_site)
    for player in (stage.client, stage.gateways[0]):
        ending = ending_of(player, connection, 30.0)
        assert ending.cause == "network_lost"
        took = took_ms(ending, cut_at)
        assert LOST.at_least_ms - FORGIVEN_MS <= took <= LOST.at_most_ms + FORGIVEN_MS, (player.name, took)


@pytest.mark.timeout(120)
def test_a_connection_whose_session_rests_goes_on_in_another_process(stage: Stage) -> None:
    connect(stage)
    connection = current_peer(stage)["connection"]
    time.sleep(AT_REST_S)
    restart(stage.gateways[0])
    connect(stage)
    assert current_peer(stage)["connection"] == connection
    assert stage.client.endings() == stage.gateways[0].endings() == []
