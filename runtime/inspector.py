"""What a program answers about itself: the commands that `ps`, `tree`, `show`, `stack` and every view are made of.

`Inspector` turns what a supervisor and its workers know into plain data, and does what a person asks of it. It sends
nothing through mailboxes where it can do without (see `lookout`): looking each second takes a millisecond a worker,
works while a worker's loop is blocked, and leaves no traces among those that one wants to look at.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from .child_spec import ChildSpec
from .control import Command, ControlError, ControlServer
from .errors import ActorDead, ExeuntError
from .events import ActorEnded, ActorStarted, ChildRestarted, Event, GaveUp
from .evidence import handled_per_s, of_actor, spans_at, under_way
from .facts import Detail, Letters, Look, Snapshot, look
from .family import TreeNode
from .lookout import SUPERVISOR, Lookout
from .messages import Description
from .portrait import (
    detail_document,
    event_document,
    kept_row,
    letter_document,
    living_row,
    message_document,
    name_of,
    spec_document,
    stacks_document,
    wakeups_document,
)
from .recorder import dead_letters_of
from .supervisor import Supervisor
from .targets import Target, find
from .trace import Span
from .tree_document import address_of, branches, leaves, tree_document
from .usage import Usage

_LAST = 10  # messages and restarts that `show` has
_RATE_S = 10.0  # over so long is counted what an actor handles each second


class Inspector:
    """Answers commands about one supervisor's program. On its loop only."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._lookout = Lookout(supervisor)
        self._usage = Usage()
        self._last: dict[tuple[str, int | None], Description] = {}
        """What each life of a worker said last: still shown while it does not answer."""

    @property
    def commands(self) -> dict[str, Command]:
        """The commands by name, for a `ControlServer`."""
        return {
            "ps": self.ps,
            "tree": self.tree,
            "show": self.show,
            "stack": self.stack,
            "restart": self.restart,
            "hand_over": self.hand_over,
            "dead_letters": self.dead_letters,
            "wakeups": self.wakeups,
        }

    def publish_to(self, control: ControlServer) -> Callable[[], None]:
        """Give the program's events, the earlier ones too, to the control socket; return what ends that."""

        def publish(event: Event) -> None:
            control.publish(event_document(event))

        for event in self._supervisor.events.recent:
            publish(event)
        return self._supervisor.events.subscribe(publish)

    def look(self, request: bytes) -> bytes:
        """Answer a `Look` into this process, for its `SideDoor`: from any thread."""
        here, *others = self._lookout.nodes_here()
        return look(here, msgspec.json.decode(request, type=Look), others=others)

    async def ps(self, _args: dict[str, Any]) -> list[dict[str, Any]]:
        """One row an actor, in order of worker and start; then children that are to be started again, or gave up."""
        seen, answering = await self._descriptions()
        usage = {worker: self._usage.of(self._pid(worker)) for worker in (SUPERVISOR, *self._supervisor.workers)}
        kept = {address_of(leaf, self._supervisor.name): leaf for leaf in leaves(self._supervisor.tree())}
        rows = [
            living_row(
                actor,
                worker,
                restarts=kept[actor.address].restarts if actor.address in kept else 0,
                usage=usage[worker],
                epoch=self._epoch(worker),
                answering=worker in answering,
            )
            for worker, description in seen.items()
            for actor in description.actors
        ]
        living = {row["address"] for row in rows}
        specs = self._specs
        for address, leaf in kept.items():
            if address not in living and leaf.id in specs:
                # A worker that does not answer may well host it, and has not said so yet.
                silent = leaf.worker not in answering and self._supervisor.worker_state(leaf.worker) == "running"
                silent = silent and leaf.state != "fatal"
                state, since_ns = ("running", 0) if silent else self._absent(address, leaf)
                row = kept_row(
                    address,
                    specs[leaf.id],
                    state,
                    restarts=leaf.restarts,
                    since_ns=since_ns,
                    incarnation=leaf.incarnation,
                    epoch=self._epoch(leaf.worker),
                    answering=not silent,
                    usage=usage[leaf.worker],
                )
                rows.append(row)
        self._usage.keep({row["pid"] for row in rows})
        return rows

    async def tree(self, _args: dict[str, Any]) -> dict[str, Any]:
        """Who supervises whom, and which worker hosts whom: see `tree_document`."""
        rows = await self.ps({})
        program = self._supervisor
        lives = {name: {"state": program.worker_state(name), "pid": self._pid(name)} for name in program.workers}
        document = tree_document(program.tree(), program.worker_tree(), rows, lives, leaving=program.leaving)
        return {**document, "pid": os.getpid()}

    async def show(self, args: dict[str, Any]) -> dict[str, Any]:
        """One actor: its spec, state, mailbox, last messages and restarts, and its own account of itself."""
        rows = await self.ps({})
        address = self._actor(str(args["actor"]), [row["address"] for row in rows])
        row = next(row for row in rows if row["address"] == address)
        worker, name = row["worker"], name_of(address)
        detail = await self._detail(worker, name)
        spec = self._specs.get(name)
        spec = spec if spec is not None and spec.worker == worker else None
        snapshot = await self._lookout.snapshot(worker, name) if detail is not None and detail.has_snapshot else None
        spans = of_actor(await self._spans(worker), address)
        per_s, over_s = handled_per_s(spans, time.time_ns(), _RATE_S)
        return {
            **row,
            "spec": spec_document(spec) if spec is not None else None,
            "queue": detail_document(detail),
            "handled_per_s": round(per_s, 2),
            "handled_over_s": round(over_s, 3),
            "messages": list(map(message_document, spans[-_LAST:])),
            "lives": [event_document(event) for event in self._lives(address, name)][-_LAST:],
            "snapshot": msgspec.json.decode(snapshot.json) if snapshot is not None and snapshot.json else None,
            "snapshot_error": _snapshot_error(snapshot, answering=row["answering"]),
            "wakeups": self._wakeups(worker) if row["answering"] else None,
        }

    async def stack(self, args: dict[str, Any]) -> list[dict[str, Any]]:
        """The stacks of one worker, or of all; of an actor: of its worker, what is not the actor's left out."""
        workers, actor = self._lookout.workers, None
        if text := str(args.get("target") or ""):
            target = await self._find(text)
            actor = target.name if target.kind == "actor" else None
            workers = [target.name.split("/")[1] if actor else target.name]
        documents: list[dict[str, Any]] = []
        for worker in self._one_a_process(workers):
            stacks = await self._lookout.stacks(worker)
            document = stacks_document(worker, stacks, under_way(await self._spans(worker)))
            documents.append(_only(document, actor) if actor else document)
        return documents

    async def restart(self, args: dict[str, Any]) -> dict[str, Any]:
        """Have a worker, a child or a supervisor started again; answers what lives there now, for who wants to wait:
        of a worker its `pid` and `epoch`, else `members`, the incarnations of all actors concerned by address.
        """
        target = await self._find(str(args["target"]), with_supervisors=True)
        if target.kind == "worker" and target.name == SUPERVISOR:
            raise ControlError("not_supervised", "Nobody restarts the supervisor.", "exeunt stop ends the program.")
        pid, epoch = (self._pid(target.name), self._epoch(target.name)) if target.kind == "worker" else (None, None)
        before = self._members(target)
        if target.kind == "actor" and not before:
            message = f"{target.name} is nobody's child: the actor that started it decides."
            raise ControlError("not_supervised", message, "exeunt tree shows who supervises whom.")
        if not await self._supervisor.restart(target.name):
            raise self._why_not(target)
        # A restarted supervisor has the children of its spec: neither fewer nor more.
        members = {address: before.get(address, 0) for address in self._members(target)}
        document = {"kind": target.kind, "name": target.name, "pid": pid, "epoch": epoch}
        return {**document, "incarnation": members.get(target.name), "members": members}

    async def hand_over(self, _args: dict[str, Any]) -> list[str]:
        """Name the workers whose restart costs nobody anything: they hand over to a successor."""
        specs = self._supervisor.workers.values()
        return [spec.name for spec in specs if spec.hands_over and self._supervisor.can_hand_over]

    async def dead_letters(self, _args: dict[str, Any]) -> dict[str, Any]:
        """The dead letters of all workers, the oldest first. The totals count those of earlier lives as well."""
        found = await self._lookout.everywhere("dead_letters", Letters)
        rows = [letter_document(letter, worker) for worker, one in found.items() for letter in one.recent]
        rows.sort(key=lambda row: str(row["at"]))
        totals = {worker: one.total for worker, one in found.items()}
        for worker, ring in self._supervisor.rings_left:
            totals[worker] = totals.get(worker, 0) + dead_letters_of(ring)
        return {"totals": totals, "letters": rows}

    async def wakeups(self, _args: dict[str, Any]) -> list[dict[str, Any]]:
        """What has woken each worker, and how often. Workers of one process share its event loop."""
        seen, answering = await self._descriptions()
        return [document for worker in seen if worker in answering and (document := self._wakeups(worker))]

    # --- inside ---

    async def _descriptions(self) -> tuple[dict[str, Description], set[str]]:
        """What each worker says, or said last, and who has answered."""
        seen = await self._lookout.everywhere("actors", Description)
        lives = [(worker, self._pid(worker)) for worker in self._lookout.workers]
        known = {**self._last, **{life: seen[life[0]] for life in lives if life[0] in seen}}
        self._last = {life: known[life] for life in lives if life in known}
        return {worker: description for (worker, _), description in self._last.items()}, set(seen)

    def _wakeups(self, worker: str) -> dict[str, Any] | None:
        said = self._last.get((worker, self._pid(worker)))
        return None if said is None else wakeups_document(worker, said, self._pid(worker))

    def _pid(self, worker: str) -> int | None:
        process = self._supervisor.processes.get(worker)
        return process.pid if process is not None else os.getpid() if worker == SUPERVISOR else None

    def _epoch(self, worker: str) -> int | None:
        process = self._supervisor.processes.get(worker)
        return process.boot.epoch if process is not None else None

    @property
    def _specs(self) -> dict[str, ChildSpec]:
        return {**self._supervisor.given_up, **self._supervisor.children}

    def _absent(self, address: str, leaf: TreeNode) -> tuple[str, int]:
        """The state of a child that does not live, and since when."""
        recent = self._supervisor.events.recent
        ended = next((e for e in reversed(recent) if isinstance(e, ActorEnded) and e.of == address), None)
        since_ns = ended.at_ns if ended is not None else 0
        if self._supervisor.leaving:
            gave_up = any(isinstance(event, GaveUp) and event.child in (leaf.id, address) for event in recent)
            return "fatal" if gave_up else "exited", since_ns
        return leaf.state if leaf.state in {"fatal", "starting", "stopping"} else "backoff", since_ns

    async def _detail(self, worker: str, name: str) -> Detail | None:
        try:
            # pyright cannot see that a union is a type
            return await self._lookout.at(worker, Look("actor", name), Detail | None)  # type: ignore[arg-type]
        except ExeuntError:
            return None

    async def _find(self, text: str, *, with_supervisors: bool = False) -> Target:
        rows = await self.ps({})
        addresses, workers = [row["address"] for row in rows], [SUPERVISOR, *self._supervisor.workers]
        nested = branches(self._supervisor.tree()) if with_supervisors else []
        return find(text, addresses, workers, [f"{self._supervisor.name}/{one.id}" for one in nested])

    def _actor(self, text: str, addresses: list[str]) -> str:
        if not any(text in (one, name_of(one)) for one in addresses):
            others = {one.id: "supervisor" for one in branches(self._supervisor.tree())}
            others |= {**dict.fromkeys(self._supervisor.workers, "worker"), self._supervisor.name: "program"}
            if kind := others.get(text.rstrip("/").removeprefix(f"{self._supervisor.name}/")):
                hint = "exeunt tree shows it, and who is below it."
                raise ControlError("no_such_actor", f"{text} is no actor but a {kind}.", hint)
        return find(text, addresses).name

    def _why_not(self, target: Target) -> ControlError:
        """Say why a target cannot be restarted."""
        lost = [one for one in branches(self._supervisor.tree()) if one.state == "fatal"]
        above = [one for one in lost if name_of(target.name) in {leaf.id for leaf in leaves(one)}]
        if above and not self._supervisor.leaving:
            message = f"{target.name} was given up with its supervisor {above[0].id}."
            return ControlError("not_supervised", message, f"Start both again: exeunt restart {above[0].id}")
        message = f"{target.name} can't be restarted: its worker is gone for good, or everybody leaves."
        return ControlError("not_supervised", message, "exeunt ps shows its state.")

    def _members(self, target: Target) -> dict[str, int]:
        """The actors that live and end with a target, and their incarnations; not those of a worker."""
        tree, name = self._supervisor.tree(), self._supervisor.name
        found = [leaf for leaf in leaves(tree) if target.name == address_of(leaf, name)]
        found += [leaf for one in branches(tree) if target.name == f"{name}/{one.id}" for leaf in leaves(one)]
        return {address_of(leaf, name): leaf.incarnation for leaf in found}

    def _one_a_process(self, workers: list[str]) -> list[str]:
        """Leave out workers whose process is that of an earlier one: inline, they have the same threads."""
        by_pid = {self._pid(worker): worker for worker in reversed(workers)}
        if None in by_pid:
            raise ActorDead(f"worker {by_pid[None]} does not live just now")
        return [worker for worker in workers if by_pid[self._pid(worker)] == worker]

    async def _spans(self, worker: str) -> list[Span]:
        directory = self._supervisor.directories.traces
        return await asyncio.to_thread(spans_at, directory, self._supervisor.name, worker)

    def _lives(self, address: str, name: str) -> list[Event]:
        kinds = (ActorStarted, ActorEnded, ChildRestarted, GaveUp)
        return [e for e in self._supervisor.events.recent if isinstance(e, kinds) and e.of in (address, name)]


def _snapshot_error(snapshot: Snapshot | None, *, answering: bool) -> str | None:
    if snapshot is None:
        return None if answering else "its worker does not answer"
    return snapshot.error or None


def _only(document: dict[str, Any], actor: str) -> dict[str, Any]:
    def its(handling: dict[str, Any] | None) -> bool:
        return handling is not None and handling["actor"] == actor

    kept = {key: [one for one in document[key] if its(one["handling"])] for key in ("threads", "waiting")}
    if document["via"] == "signal":
        kept["threads"] = document["threads"]  # nobody knows whose they are
    return {**document, **kept, "began": [one for one in document["began"] if its(one)]}
