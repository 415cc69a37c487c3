"""Tell and ask within one process."""

import asyncio

import pytest
from tests.runtime.troupe import Fail, Gate, NotRegistered, Number, Open, Player, Refuse, Said, Say, Where

from exeunt.runtime import Actor, ActorDead, AskTimeout, MailboxFull, Message, Refused, RemoteFailure, receive
from exeunt.runtime.errors import NameTaken, UnknownMessage
from exeunt.runtime.node import Node


async def test_an_ask_gets_its_answer(node: Node) -> None:
    ref = node.start(Player(), "p")
    answer = await ref.ask(Say("hello"))
    assert isinstance(answer, Said)
    assert answer.text == "hello"


async def test_messages_are_handled_in_the_order_they_were_sent(node: Node) -> None:
    player = Player()
    ref = node.start(player, "p")
    for n in range(0, 300, 3):
        ref.tell(Say(str(n)))
        ref.tell(Number(n + 1))
        await ref.ask(Number(n + 2)) if n % 30 == 0 else ref.tell(Number(n + 2))
    await ref.ask(Say("last"))
    assert [int(entry) for entry in player.log[:-1]] == list(range(300))


async def test_an_async_handler_ends_before_the_next_message_begins(node: Node) -> None:
    inside = 0

    class Careful(Actor):
        @receive(Number)
        async def number(self, message: Number) -> Number:
            nonlocal inside
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1
            return message

    ref = node.start(Careful(), "c")
    replies = [ref.ask(Number(n)) for n in range(200)]
    assert [(await reply).n for reply in replies] == list(range(200))


async def test_a_subclass_inherits_and_overrides_handlers(node: Node) -> None:
    class Loud(Player):
        @receive(Say)
        def shout(self, message: Say) -> Said:
            return Said(message.text.upper())

    ref = node.start(Loud(), "l")
    assert (await ref.ask(Say("hello"))).text == "HELLO"
    assert await ref.ask(Number(1)) == Number(1)


async def test_a_refusal_reaches_the_asker_and_the_actor_lives_on(node: Node) -> None:
    ref = node.start(Player(), "p")
    with pytest.raises(Refused, match="ask me tomorrow") as refused:
        await ref.ask(Refuse())
    assert refused.value.code == "not_now"
    assert await ref.ask(Number(1)) == Number(1)


async def test_an_unknown_message_is_refused(node: Node) -> None:
    ref = node.start(Gate(), "g")
    with pytest.raises(Refused, match="Gate does not handle NotRegistered") as refused:
        await ref.ask(NotRegistered())
    assert refused.value.code == "unknown_message"
    ref.tell(NotRegistered())
    assert await ref.ask(Number(1)) == Number(1)


async def test_an_ask_to_nobody_fails_at_once(node: Node) -> None:
    with pytest.raises(ActorDead, match="n/w/nobody does not live"):
        await node.local("nobody").ask(Say("?"))
    with pytest.raises(ActorDead, match="no such worker"):
        await node.ref("n/elsewhere/p").ask(Say("?"))
    with pytest.raises(ActorDead, match="no such worker"):
        await node.ref("other/w/p").ask(Say("?"))


async def test_a_tell_to_nobody_is_a_dead_letter(node: Node) -> None:
    node.local("nobody").tell(Say("hello?"))
    node.ref("n/elsewhere/p").tell(Say("hello?"))
    assert node.dead_letters.total == 2
    assert [letter.to for letter in node.dead_letters.recent] == ["n/w/nobody", "n/elsewhere/p"]


async def test_an_ask_times_out_and_its_late_answer_is_dropped(node: Node) -> None:
    gate = Gate()
    ref = node.start(gate, "g")
    with pytest.raises(AskTimeout, match=r"did not answer within 0\.01 s"):
        await ref.ask(Open(), timeout_s=0.01)
    gate.gate.set()
    assert await ref.ask(Number(1)) == Number(1)


async def test_a_timeout_is_also_pythons_own(node: Node) -> None:
    ref = node.start(Gate(), "g")
    with pytest.raises(TimeoutError):
        await ref.ask(Open(), timeout_s=0)


async def test_a_full_mailbox_tells_the_asker_and_counts_the_teller(node: Node) -> None:
    class Small(Gate):
        mailbox_bound = 2

    gate = Small()
    ref = node.start(gate, "g")
    first = ref.ask(Open())
    await gate.entered.wait()
    waiting = [ref.ask(Number(1)), ref.ask(Number(2))]
    with pytest.raises(MailboxFull, match="2 messages waiting"):
        await ref.ask(Number(3))
    ref.tell(Number(4))
    assert (gate.mailbox.rejected_total, node.dead_letters.total) == (2, 1)
    gate.gate.set()
    assert await first == Said("open")
    assert [(await reply).n for reply in waiting] == [1, 2]


async def test_an_answer_that_is_no_message_fails_the_ask_at_once(node: Node) -> None:
    class Wrong(Actor):
        @receive(Say)
        def say(self, _message: Say) -> object:
            return "a bare string"

    ref = node.start(Wrong(), "w")
    with pytest.raises(UnknownMessage, match="not str"):
        await ref.ask(Say("x"), timeout_s=60)


async def test_a_name_is_taken_once_and_free_again_after_the_end(node: Node) -> None:
    first = Player()
    ref = node.start(first, "p")
    with pytest.raises(NameTaken):
        node.start(Player(), "p")
    ref.stop()
    await first.until_ended()
    assert await node.start(Player(), "p").ask(Number(1)) == Number(1)


async def test_pykkas_own_start_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Node\.start"):
        Player.start()


async def test_a_later_answer_lets_the_actor_go_on(node: Node) -> None:
    gate = Gate()
    ref = node.start(gate, "g")
    later = ref.ask(Say("later"))
    assert await ref.ask(Number(1)) == Number(1)
    assert not later.done()
    gate.gate.set()
    assert await later == Said("later")


async def test_a_later_answer_that_fails_fails_the_ask_only(node: Node) -> None:
    gate = Gate()
    ref = node.start(gate, "g")
    gate.gate.set()
    with pytest.raises(RemoteFailure, match="SystemExit: 3"):
        await ref.ask(Say("fail"))
    assert await ref.ask(Number(1)) == Number(1)


@pytest.mark.parametrize("begun", [True, False])
async def test_a_later_answer_ends_with_its_actor(node: Node, begun: bool) -> None:
    gate = Gate()
    ref = node.start(gate, "g")
    later = ref.ask(Say("later"), timeout_s=60)
    if begun:
        await gate.entered.wait()
    ref.stop()
    with pytest.raises(ActorDead):
        await later


async def test_an_actor_knows_who_sent_what_it_handles(node: Node) -> None:
    class Polite(Actor):
        @receive(Say)
        def say(self, _message: Say) -> Said:
            return Said(str(self.sender))

        @receive(Where)
        async def where(self, _message: Where) -> Message:
            answer: Message = await self.node.local("other").ask(Say("who am I?"))
            return answer

    ref = node.start(Polite(), "one")
    node.start(Polite(), "other")
    assert (await ref.ask(Say("?"))).text == "None"
    assert (await ref.ask(Where())).text == "n/w/one"


async def test_an_error_that_cannot_be_printed_still_answers(node: Node) -> None:
    ref = node.start(Player(), "p")
    with pytest.raises(RemoteFailure, match=r"its __str__ raised ValueError"):
        await ref.ask(Fail("Unprintable"), timeout_s=60)
