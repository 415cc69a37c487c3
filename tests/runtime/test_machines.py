"""Mailbox, watches and flow control against models that are too simple to be wrong, in every order of events."""

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.runtime.troupe import Number

from exeunt.runtime import Terminated
from exeunt.runtime.envelope import Envelope, Kind
from exeunt.runtime.flow import WINDOWS, Outboxes
from exeunt.runtime.mailbox import Mailbox, Policy, Rejected
from exeunt.runtime.watches import Watches

ORIGINS = st.sampled_from(["", "a", "b"])


class MailboxMachine(RuleBasedStateMachine):
    """A mailbox is a list; what flow control hears of each worker's messages is their order."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = 0
        self.system: list[int] = []
        self.list: list[tuple[int, str, str]] = []
        """What waits: id, origin, kind (`tell`, `ask`, `terminated`, `stop`, `rejected`), in order."""
        self.sent: dict[str, list[int]] = {"a": [], "b": []}
        """What other workers have sent, and has not been settled, in order."""

    @initialize(bound=st.integers(0, 4), policy=st.sampled_from(["reject", "drop_oldest", "block"]))
    def begin(self, bound: int, policy: Policy) -> None:
        self.mailbox = Mailbox(bound, policy)

    def envelope(self, origin: str, kind: str) -> Envelope:
        self.ids += 1
        body = Terminated("n/w/x", "normal") if kind == "terminated" else Number(self.ids)
        if origin:
            self.sent[origin].append(self.ids)
        return Envelope(self.ids, 1, 0, "s", "r", Kind.ASK if kind == "ask" else Kind.TELL, 0, body, origin=origin)

    @property
    def waiting(self) -> list[tuple[int, str, str]]:
        return [one for one in self.list if one[2] != "rejected"]

    def settle(self, id_: int, origin: str) -> None:
        if origin:
            self.sent[origin].remove(id_)

    @precondition(lambda self: not self.mailbox.draining)
    @rule(origin=ORIGINS, kind=st.sampled_from(["tell", "ask", "terminated"]), forced=st.booleans())
    def put(self, origin: str, kind: str, forced: bool) -> None:
        origin = origin if kind == "tell" else ""  # only tells are settled
        forced = forced or kind == "terminated"
        envelope = self.envelope(origin, kind)
        gone = self.mailbox.put(envelope, forced=forced)
        may_go = [one for one in self.list if one[2] in {"tell", "ask"}]
        if forced or len(self.waiting) < self.mailbox.bound:
            assert gone is None
            self.list.append((envelope.id, origin, kind))
        elif self.mailbox.policy == "drop_oldest" and may_go:
            assert gone is not None
            assert gone.id == may_go[0][0]
            self.list.remove(may_go[0])
            self.settle(gone.id, gone.origin)
            self.list.append((envelope.id, origin, kind))
        else:
            assert gone is envelope
            self._rejected(envelope)

    def _rejected(self, envelope: Envelope) -> None:
        if envelope.origin:
            self.list.append((envelope.id, envelope.origin, "rejected"))

    @rule(origin=st.sampled_from(["a", "b"]), count=st.integers(1, 3))
    def put_run(self, origin: str, count: int) -> None:
        before = self.ids
        run = [self.envelope(origin, "tell") for _ in range(count)]
        taken = self.mailbox.put_all(run)
        assert taken == (not self.mailbox.draining and len(self.waiting) + count < self.mailbox.bound)
        if taken:
            self.list.extend((one.id, origin, "tell") for one in run)
        else:
            del self.sent[origin][-count:]
            self.ids = before

    @rule(origin=ORIGINS)
    def reject(self, origin: str) -> None:
        """Of a draining one, and what could not be read."""
        envelope = self.envelope(origin, "tell")
        self.mailbox.reject(envelope)
        self._rejected(envelope)

    @rule()
    def put_system(self) -> None:
        envelope = self.envelope("", "tell")
        self.mailbox.put_system(envelope)
        self.system.append(envelope.id)

    @rule()
    def drain(self) -> None:
        envelope = Envelope(0, 1, 0, "s", "r", Kind.SYSTEM, 0, None)
        self.mailbox.drain(envelope)
        self.list.append((0, "", "stop"))

    @rule(pick=st.integers(0, 40))
    def withdraw(self, pick: int) -> None:
        asks = [one for one in self.list if one[2] == "ask"]
        tells = [one[0] for one in self.list if one[2] == "tell"]
        if asks:
            chosen = asks[pick % len(asks)]
            found = self.mailbox.withdraw(chosen[0])
            assert found is not None
            assert found.id == chosen[0]
            self.list.remove(chosen)
        assert self.mailbox.withdraw(-1) is None
        assert not any(self.mailbox.withdraw(id_) for id_ in tells)

    @rule(count=st.integers(1, 3))
    def put_back(self, count: int) -> None:
        stashed = [self.envelope("", "tell") for _ in range(count)]
        self.mailbox.put_back(stashed)
        self.list[:0] = [(one.id, "", "tell") for one in stashed]

    @rule(count=st.integers(1, 20))
    def get_some(self, count: int) -> None:
        """As many as all others bring, or the end of the list would never be reached."""
        while count and not self.mailbox.empty():
            self.get()
            count -= 1

    def get(self) -> None:
        envelope = self.mailbox.get()
        if self.system:
            assert envelope.id == self.system.pop(0)
            return
        if type(envelope.body) is not Rejected:
            id_, origin, _ = self.list.pop(0)
            assert (envelope.id, envelope.origin) == (id_, origin)
            if origin:
                assert self.sent[origin].pop(0) == id_, "settled before one that was sent earlier"
            return
        for _ in range(self.mailbox.passed(envelope)):
            id_, origin, kind = self.list.pop(0)
            assert (kind, origin) == ("rejected", envelope.origin)
            assert self.sent[origin].pop(0) == id_

    @invariant()
    def counts(self) -> None:
        assert len(self.mailbox) == len(self.waiting) + len(self.system)
        assert self.mailbox.empty() == (not self.list and not self.system)

    def teardown(self) -> None:
        left = self.mailbox.close()
        stand_ins = [one for one in left if type(one.body) is Rejected]
        assert len(left) - len(stand_ins) == len(self.waiting) + len(self.system)
        assert sum(one.body.count for one in stand_ins) == len(self.list) - len(self.waiting)
        assert self.mailbox.empty()


class WatchesMachine(RuleBasedStateMachine):
    """Two processes' bookkeeping, with mail under way between them, against a set of who is tied to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = Watches(), Watches()
        self.mail: deque[tuple[str, str, str, int]] = deque()
        """From the watchers to the targets, in order: what, watcher, target, id."""
        self.news: deque[tuple[str, str, int]] = deque()
        """From the targets to the watchers: watcher, target, id."""
        self.ids = 0
        self.tied: dict[tuple[str, str], set[str]] = {}
        self.since: dict[tuple[str, str], int] = {}
        """Which end of the target comes too early to be the watch's: how many there had been."""
        self.ended: dict[str, int] = {"x": 0, "y": 0}

    pairs = st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(["x", "y"]))

    @rule(pair=pairs, linked=st.booleans())
    def tie(self, pair: tuple[str, str], linked: bool) -> None:
        self.ids += 1
        kind = "linked" if linked else "watched"
        assert self.near.add(*pair, self.ids, linked=linked) == (kind not in self.tied.get(pair, set()))
        if pair not in self.tied:
            assert self.near.id_of(*pair) == self.ids
            self.since[pair] = self.ended[pair[1]]
            self.mail.append(("watch", *pair, self.ids))
        self.tied.setdefault(pair, set()).add(kind)

    @rule(pair=pairs, linked=st.booleans())
    def untie(self, pair: tuple[str, str], linked: bool) -> None:
        kinds = self.tied.get(pair, set())
        id_ = self.near.id_of(*pair)
        kinds.discard("linked" if linked else "watched")
        over = self.near.drop(*pair, linked=linked)
        assert over == (id_ if pair in self.tied and not kinds else 0)
        if over:
            del self.tied[pair]
            self.mail.append(("unwatch", *pair, over))

    @precondition(lambda self: self.mail)
    @rule()
    def mail_arrives(self) -> None:
        what, watcher, target, id_ = self.mail.popleft()
        if what == "watch":
            self.far.add_remote(watcher, target, id_)
        else:
            self.far.remove_remote(watcher, target, id_)

    @rule(ends=st.sampled_from(["x", "y"]))
    def target_ends(self, ends: str) -> None:
        """And a successor lives there."""
        self.ended[ends] += 1
        told = self.far.of_target(ends)
        assert len(dict(told)) == len(told), "somebody is told twice"
        self.news.extend((watcher, ends, id_) for watcher, id_ in told)
        assert self.far.of_target(ends) == []

    @precondition(lambda self: self.news)
    @rule(again=st.booleans())
    def news_arrives(self, again: bool) -> None:
        watcher, target, id_ = self.news[0] if again else self.news.popleft()
        pair = (watcher, target)
        current = self.near.id_of(*pair)
        tie = self.near.end(watcher, target, id_)
        assert (tie is not None) == (pair in self.tied and current == id_)
        if tie is not None:
            assert self.ended[target] > self.since[pair], "told of an end before it watched"
            kinds = self.tied.pop(pair)
            assert (tie.watched, tie.linked) == ("watched" in kinds, "linked" in kinds)

    @rule(watcher=st.sampled_from(["p", "q"]))
    def watcher_ends(self, watcher: str) -> None:
        forgotten = self.near.forget_watcher(watcher)
        assert {target for target, _ in forgotten} == {target for who, target in self.tied if who == watcher}
        for target, tie in forgotten:
            del self.tied[watcher, target]
            self.mail.append(("unwatch", watcher, target, tie.id))

    @invariant()
    def both_know_the_same(self) -> None:
        assert sorted(self.near.by_target_prefix("")) == sorted(self.tied)

    def teardown(self) -> None:
        """When all mail has come, who is still tied is told of an end exactly once, and nothing is left over."""
        while self.mail:
            self.mail_arrives()
        for one in ("x", "y"):
            self.target_ends(one)
        while self.news:
            self.news_arrives(again=False)
        assert not self.tied
        assert self.near.is_empty
        assert self.far.is_empty


TO = "n/b/r"


class FlowMachine(RuleBasedStateMachine):
    """An outbox, a network that keeps order, and a mailbox at the other end that settles in order, or lies."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = 0
        self.reachable = True
        self.under_way: deque[Envelope] = deque()
        self.arrived: deque[int] = deque()
        self.reports: deque[tuple[int, int]] = deque()
        self.dealt_with: list[int] = []
        self.unreported = 0
        self.told: list[int] = []
        """What left or waits and has not failed, in order."""
        self.lied = False
        self.boxes = Outboxes(self.send)

    def send(self, envelope: Envelope) -> bool:
        if not self.reachable:
            if envelope.kind == Kind.TELL:
                self.told.remove(envelope.id)
            return False
        self.under_way.append(envelope)
        return True

    @rule(skip=st.integers(0, 1), sender=st.sampled_from(["n/a/p", "n/a/q"]), count=st.integers(1, 20))
    def tell(self, skip: int, sender: str, count: int) -> None:
        for _ in range(count):
            self.ids += 1 + skip
            box = self.boxes.of(TO)
            envelope = Envelope(self.ids, self.ids, 0, sender, TO, Kind.TELL, 0, Number(self.ids))
            self.told.append(self.ids)
            if box.has_room:
                if not self.boxes.send(box, envelope):
                    self.boxes.forget_idle(TO)
            else:
                box.waiting.append(envelope)

    @rule()
    def cannot_be_encoded(self) -> None:
        """The last that left did not after all: it was still in the batch."""
        box = self.boxes.known(TO)
        if box is not None and self.under_way and not self.lied:
            envelope = self.under_way.pop()
            box.withdraw(envelope.id)
            self.told.remove(envelope.id)
            self.boxes.send_on(TO)

    @precondition(lambda self: self.under_way)
    @rule(count=st.integers(1, 30))
    def arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.under_way))):
            self.arrived.append(self.under_way.popleft().id)

    @precondition(lambda self: self.arrived)
    @rule(count=st.integers(1, 30))
    def handle(self, count: int) -> None:
        for _ in range(min(count, len(self.arrived))):
            self.dealt_with.append(self.arrived.popleft())
            self.unreported += 1

    @precondition(lambda self: self.unreported)
    @rule(window=st.sampled_from([16, 20, 5_000]))
    def report(self, window: int) -> None:
        self.reports.append((self.dealt_with[-1], window))
        self.unreported = 0

    @precondition(lambda self: self.reports)
    @rule()
    def report_arrives(self) -> None:
        last, window = self.reports.popleft()
        self.boxes.settled(TO, last, window)
        self.told = [one for one in self.told if one > last]

    @rule(last=st.one_of(st.integers(-5, 500), st.integers(1 << 40, 1 << 62)), window=st.integers(-5, 1 << 62))
    def forged(self, last: int, window: int) -> None:
        """What was never dealt with, or sent by somebody else: breaks nothing but what is known of this recipient."""
        if last > 0 and self.boxes.known(TO) is not None:
            self.lied = True
        self.boxes.settled(TO, last, window)

    @rule(reachable=st.booleans())
    def network(self, reachable: bool) -> None:
        self.reachable = reachable

    @rule()
    def worker_is_gone(self) -> None:
        lost = self.boxes.lost("n/b/")
        found = [one.id for in_doubt, waiting in lost for one in (*in_doubt, *waiting)]
        if not self.lied:
            assert found == self.told, "in doubt is what was not reported as dealt with, neither more nor less"
        assert len(set(found)) == len(found)
        for in_doubt, _ in lost:
            assert all(one.trace == one.id for one in in_doubt)
        self.told.clear()
        self.under_way.clear()
        self.arrived.clear()
        self.reports.clear()
        self.unreported = 0
        self.lied = False
        assert self.boxes.known(TO) is None

    @invariant()
    def adds_up(self) -> None:
        box = self.boxes.known(TO)
        if box is None:
            return
        assert box.outstanding >= 0
        assert sum(run.count for run in box.unsettled) == box.outstanding
        assert all(run.count > 0 for run in box.unsettled)
        assert WINDOWS[0] <= box.window <= WINDOWS[1]
        if not self.lied:
            assert [one.id for one in (*box.in_doubt(), *box.waiting)] == self.told

    @invariant()
    def in_order(self) -> None:
        assert self.dealt_with == sorted(self.dealt_with)


MailboxMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
WatchesMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
FlowMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestMailbox = MailboxMachine.TestCase
TestWatches = WatchesMachine.TestCase
TestFlow = FlowMachine.TestCase
