"""New ICE credentials for both ends of a connection, and only for them."""

import pytest

from exeunt.actors.portal.messages import Error, IceCandidates, IceRestarted, LiveConnection, RestartIce

from .conftest import Peer, Rig
from .test_endings import Pair


@pytest.fixture
def pair(rig: Rig) -> Pair:
    return Pair(rig)


def restart(pair: Pair, asker: Peer) -> None:
    asker.say(RestartIce(connection=pair.id, reason="addresses changed"))


def test_both_ends_get_new_credentials_that_fit(pair: Pair) -> None:
    restart(pair, pair.client)
    mine, theirs = pair.client.take(IceRestarted), pair.gateway.take(IceRestarted)
    assert (mine.connection, mine.generation) == (theirs.connection, theirs.generation) == (pair.id, 1)
    assert (mine.local_ice, mine.remote_ice) == (theirs.remote_ice, theirs.local_ice)
    assert mine.local_ice != mine.remote_ice
    pair.rig.now += 1
    restart(pair, pair.gateway)
    again = pair.client.take(IceRestarted)
    assert again.generation == 2
    assert again.local_ice.username != mine.local_ice.username
    assert again.local_ice.password != mine.local_ice.password
    assert pair.rig.facts[-1].kind == "ice_restarted"
    assert pair.rig.facts[-1].detail == "addresses changed"


def test_two_wishes_within_a_second_are_one(pair: Pair) -> None:
    restart(pair, pair.client)
    pair.rig.now += 0.9
    restart(pair, pair.gateway)
    for end in (pair.client, pair.gateway):
        assert [type(message) for message in end.take_all()] == [IceRestarted]
    pair.rig.now += 0.1
    restart(pair, pair.gateway)
    assert pair.client.take(IceRestarted).generation == 2


def test_only_an_end_may_ask(pair: Pair) -> None:
    stranger = pair.rig.peer(pair.rig.add_client("stranger"))
    stranger.join()
    restart(pair, stranger)
    assert stranger.take(Error).code == "unknown_connection"
    assert pair.client.take_all() == []
    pair.client.say(RestartIce(connection="never-was"))
    assert pair.client.take(Error).code == "unknown_connection"


def test_candidates_of_other_generations_are_dropped(pair: Pair) -> None:
    restart(pair, pair.client)
    pair.gateway.take_all()
    for generation in (0, 2, 1):
        pair.client.say(IceCandidates(connection=pair.id, candidates=(f"g{generation}",), generation=generation))
    assert [message.candidates for message in pair.gateway.take_all() if isinstance(message, IceCandidates)] == [
        ("g1",)
    ]
    assert pair.rig.machine.counters.stale_candidates == 2


def test_an_end_that_is_away_gets_the_newest_credentials_and_only_their_candidates(pair: Pair) -> None:
    pair.gateway.lose("reset")
    pair.client.say(IceCandidates(connection=pair.id, candidates=("old",)))
    for number in range(2):
        pair.rig.now += 1
        restart(pair, pair.client)
        pair.client.say(IceCandidates(connection=pair.id, candidates=(f"new{number}",), generation=number + 1))
    again = pair.rig.peer(pair.rig.gateway_made)
    again.join(LiveConnection(connection=pair.id, peer_id=pair.client.id, resource_ids=(pair.rig.web.id,)))
    restarted, candidates = again.take_all()
    assert isinstance(restarted, IceRestarted)
    assert isinstance(candidates, IceCandidates)
    assert (restarted.generation, candidates.generation, candidates.candidates) == (2, 2, ("new1",))


def test_withdrawn_candidates_are_passed_on(pair: Pair) -> None:
    message = IceCandidates(connection=pair.id, withdrawn=("relay",))
    pair.client.say(message)
    assert pair.gateway.take(IceCandidates) == message


def test_after_a_restart_of_the_portal_generations_go_on_rising(pair: Pair) -> None:
    restart(pair, pair.client)
    before = pair.client.take(IceRestarted).generation
    pair.rig.restart()
    gateway, client = pair.rig.peer(pair.rig.gateway_made), pair.rig.peer(pair.rig.client_made)
    gateway.join(LiveConnection(connection=pair.id, peer_id=client.id, resource_ids=(pair.rig.web.id,)))
    client.join(LiveConnection(connection=pair.id, peer_id=gateway.id, resource_ids=(pair.rig.web.id,)))
    client.say(IceCandidates(connection=pair.id, candidates=("still",), generation=before))
    assert gateway.take(IceCandidates).generation == before, "this portal cannot know that it is the current one"
    restart(pair, client)
    first = gateway.take(IceRestarted).generation
    assert first > before
    pair.rig.now += 1
    restart(pair, client)
    assert gateway.take(IceRestarted).generation == first + 1
