"""A run: subjects opened once, rounds of measurements in which all take turns, figures and who was left out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exeunt.clients.demo.stage import StageError

from ..machine import Machine
from ..report import Figure, Report
from . import growth, profile
from .measures import EVERYBODYS, OURS, Figures, Measure, handshake
from .measures import PRODUCED as PRODUCED_IN_ROUNDS
from .relayed import PREFIXES, Relayed
from .subjects import KERNELS, Exeunt, NotHere, Subject, Veth
from .targets import RIVAL
from .traffic import TrafficFailed
from .wireguard_go import WireguardGo, installed, newest

PRODUCED = {**PRODUCED_IN_ROUNDS, **growth.PRODUCED}
"""The figures of each measure, in the order of the table."""
UNITS = {
    "mbit_s": "Mbit/s",
    "cpu_s_per_gb": "s/GB",
    "_ms": "ms",
    "pps": "1/s",
    "percent": "%",
    "_kb": "kB",
    "ratio": "",
}
"""By a part of a figure's name; the first that is in it."""


@dataclass(frozen=True)
class Wishes:
    """What a run is asked for."""

    rounds: int = 3
    seconds: float = 1.5
    """Of each measurement of a rate."""
    only: Sequence[str] = ()
    """Subjects; empty for all."""
    figures: Sequence[str] = ()
    """Figures, or measures; empty for those that every run has."""
    mtu: int | None = None
    """Of every tunnel, in bytes; None: each has its own default."""
    profiles: Path | None = None
    """Where to write profiles of ours."""
    scaling: bool = False
    """Whether to measure how cost grows, too."""

    def includes(self, subject: str) -> bool:
        """Whether a subject was asked for."""
        return not self.only or subject in self.only

    def wants(self, measure: str) -> bool:
        """Whether a measure was asked for."""
        if self.figures:
            return bool({measure, *PRODUCED[measure]} & set(self.figures))
        return self.scaling or measure in PRODUCED_IN_ROUNDS

    def wants_figure(self, figure: str) -> bool:
        """Whether a figure was asked for, by its name or its measure's, or none in particular was."""
        names = {figure, *(measure for measure, figures in PRODUCED.items() if figure in figures)}
        return not self.figures or bool(names & set(self.figures))


@dataclass
class Run:
    """What was found so far."""

    wishes: Wishes
    machine: Machine
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict[tuple[str, str], list[float]])
    """By subject and figure."""

    def go(self) -> None:
        """Measure."""
        with contextlib.ExitStack() as stack:
            opened = (self._open(name, stack) for name in OPENERS if self._is_wanted(name))
            subjects = [one for one in opened if one is not None]
            relayed = list(self._open_relayed(stack))
            for number in range(self.wishes.rounds):
                print(f"round {number + 1} of {self.wishes.rounds} …", flush=True)
                self.machine.calibrate()
                self._round(subjects)
                self._relays(relayed)
                if self.wishes.wants("handshake"):
                    self.take("exeunt", handshake())
            self._grow(subjects)
            self._profile(subjects)

    def figures(self) -> Iterator[Figure]:
        """What was measured, figure by figure, in the order of `PRODUCED`."""
        for name, values in self.machine.values.items():
            yield Figure(name, "machine", values, "%" if name.endswith("percent") else "ms")
        order = [name for names in PRODUCED.values() for name in names]
        for subject, name in sorted(self.values, key=lambda key: order.index(key[1])):
            yield Figure(name, subject, self.values[subject, name], unit(name))

    def take(self, subject: str, figures: Figures) -> None:
        """Note what was measured once."""
        for name, value in figures.items():
            self.values.setdefault((subject, name), []).append(value)

    def _is_wanted(self, name: str) -> bool:
        measured = [*EVERYBODYS, "segments", *(OURS if name in KERNELS else ())]
        return self.wishes.includes(name) and any(self.wishes.wants(one) for one in measured)

    def _open(self, name: str, stack: contextlib.ExitStack) -> Subject | None:
        try:
            subject = OPENERS[name](name, self.wishes)
        except NotHere as why:
            self.left_out[name] = str(why)
            return None
        stack.callback(subject.close)
        return subject

    def _open_relayed(self, stack: contextlib.ExitStack) -> Iterator[Relayed]:
        for kind, prefix in PREFIXES.items():
            for name in KERNELS:
                if not (self.wishes.includes(name) and self.wishes.wants(prefix)):
                    continue
                try:
                    one = Relayed(name, kind)
                except NotHere as why:
                    self.left_out[f"{name} over {kind}"] = str(why)
                    continue
                stack.callback(one.close)
                yield one

    def _relays(self, relayed: list[Relayed]) -> None:
        measured: set[str] = set()
        for one in relayed:
            self.machine.await_quiet()
            with self._failing(f"{one.name} over {one.kind}"):
                self.take(one.name, one.tcp1(self.wishes.seconds))
            if one.kind not in measured:  # the same for both of ours
                measured.add(one.kind)
                self.machine.await_quiet()
                with self._failing(f"ceiling of {one.kind}"):
                    self.take(one.kind, one.ceiling())

    def _round(self, subjects: list[Subject]) -> None:
        for name, measure in EVERYBODYS.items():
            if self.wishes.wants(name):
                for subject in subjects:
                    self._measure(subject, measure)
        for name, measure in OURS.items():
            if self.wishes.wants(name):
                for subject in subjects:
                    if isinstance(subject, Exeunt):
                        self._measure(subject, measure)

    def _grow(self, subjects: list[Subject]) -> None:
        """How cost grows; once, and where it takes minutes only for the first of ours."""
        if self.wishes.wants("segments"):
            for subject in subjects:
                if subject.name in (*KERNELS, RIVAL):
                    self._take_all(subject.name, growth.segments(subject, self.wishes.seconds))
        ours = next((name for name in KERNELS if self.wishes.includes(name)), None)
        if ours is None:
            return
        if self.wishes.wants("active"):
            self._take_all(ours, growth.many(ours))
        if self.wishes.wants("workers"):
            self._take_all(ours, growth.workers(ours))
        if self.wishes.wants("peers"):
            self._take_all(ours, growth.peers(ours, self.wishes.seconds, self.wishes.wants_figure))

    def _take_all(self, subject: str, found: Iterator[Figures]) -> None:
        with self._failing(f"{subject}, growth"):
            for figures in found:
                self.take(subject, figures)

    def _profile(self, subjects: list[Subject]) -> None:
        if self.wishes.profiles is not None:
            for subject in subjects:
                if isinstance(subject, Exeunt):
                    with self._failing(f"profiles of {subject.name}"):
                        profile.take(subject, self.wishes.profiles)

    def _measure(self, subject: Subject, measure: Measure) -> None:
        self.machine.await_quiet()
        with self._failing(f"{subject.name}, {measure.__name__}"):
            found = measure(subject, self.wishes.seconds)
            if isinstance(subject, Exeunt) and subject.paths() != {"direct"}:
                raise TrafficFailed(f"the path was {subject.paths()}, and not direct")
            self.take(subject.name, found)

    @contextlib.contextmanager
    def _failing(self, what: str) -> Generator[None]:
        """What fails is told at the end, and costs only its own figures."""
        try:
            yield
        except (TrafficFailed, StageError, OSError) as failure:
            self.left_out[what] = str(failure)


def unit(name: str) -> str:
    """The unit of a figure."""
    return next((unit for part, unit in UNITS.items() if part in name), "")


OPENERS: dict[str, Callable[[str, Wishes], Subject]] = {
    **dict.fromkeys(KERNELS, lambda name, wishes: Exeunt(name, mtu=wishes.mtu)),
    "wireguard-go": lambda name, wishes: WireguardGo(name, newest(), mtu=wishes.mtu),
    "wireguard-go-2022": lambda name, wishes: WireguardGo(name, installed(), mtu=wishes.mtu),
    "veth": lambda _name, _wishes: Veth(),
}
"""All subjects, and how one is put onto its line."""


def run(wishes: Wishes, patience_s: float) -> tuple[Report, dict[str, str]]:
    """Measure; return the report, and who was left out because of what. Needs root."""
    measured = Run(wishes, Machine(patience_s))
    measured.go()
    return Report("tunnel", list(measured.figures())), measured.left_out
