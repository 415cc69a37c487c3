"""The documents against the code: links, names of files, commands, diagrams, and the README's example.

What stands between `<!-- generated: … -->` and `<!-- end -->` is made from tables of the code. Write it anew with
``python tests/test_docs.py``.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

import pytest

from exeunt.actors import timing
from exeunt.actors.endings import Cause
from exeunt.actors.ice.check_list import PAIR_TRANSITIONS
from exeunt.actors.peer import states as peer
from exeunt.actors.peer.control_packet import REASON_CODES
from exeunt.actors.portal import machine as portal
from exeunt.actors.wireguard import timing as wireguard_timing
from exeunt.actors.wireguard.handshake import TransportKeys
from exeunt.actors.wireguard.key_slots import KeySlots
from exeunt.actors.wireguard.session import Session
from exeunt.actors.wireguard.timers import Timer
from exeunt.actors.wireguard.timing import Limits
from exeunt.clients.app import build, globals_last
from exeunt.clients.catalogue import COMMANDS
from exeunt.clients.output import ExitCode

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

DEADLINES: Final = {
    "GOODBYE_REPEAT_S": "a goodbye that was not acknowledged is said again",
    "GOODBYE_DEADLINE_S": "then the ending stands, unacknowledged",
    "LINGER_S": "who was told goodbye still answers repetitions",
    "RELEASE_S": "TURN allocations are released",
    "PEER_CLOSE_S": "the event loop waits for one connection",
    "PORTAL_LEAVE_S": "leaving waits for the portal",
    "EVENT_LOOP_LEAVE_S": "the event loop, portal and connections together",
    "LAST_DELIVERY_S": "a user who takes no event is waited for, once the event loop is gone",
    "DRAIN_S": "the event stream, its loop gone and its last event delivered",
    "APPLICATION_LEAVE_S": "the supervisor's patience with all of it",
    "WORKER_LEAVE_S": "a worker that is told to leave",
}
WIREGUARD_NUMBERS: Final = {
    "REKEY_AFTER_TIME_S": "paper 6.1",
    "REJECT_AFTER_TIME_S": "paper 6.1",
    "REKEY_AFTER_MESSAGES": "paper 6.1",
    "REJECT_AFTER_MESSAGES": "paper 6.1: the replay window can never wrap",
    "LAST_WILL_MESSAGES": "ours: counters below the former that ordinary packets leave alone",
    "REKEY_TIMEOUT_S": "paper 6.1",
    "REKEY_TIMEOUT_JITTER_S": "paper 6.1",
    "REKEY_ATTEMPT_TIME_S": "paper 6.1",
    "ICE_REKEY_ATTEMPT_TIME_S": "ours: after ICE's verdict",
    "KEEPALIVE_TIMEOUT_S": "paper 6.1 and 6.5",
    "COOKIE_SECRET_MAX_AGE_S": "paper 5.4.7",
    "COOKIE_LIFETIME_S": "Linux: the former, less 5 s",
    "INITIATIONS_PER_SECOND": "Linux; of one peer",
    "TIMESTAMP_GRANULARITY_NS": "Linux: 1/50 s, rounded to a power of two",
    "HANDSHAKES_PER_SECOND": "ours: from then on under load",
    "SOURCE_HANDSHAKES_PER_SECOND": "Linux; under load, of one address",
    "SOURCE_HANDSHAKE_BURST": "Linux",
    "REPLAY_WINDOW_PACKETS": "Linux; the room that `REJECT_AFTER_MESSAGES` leaves",
    "QUEUED_PACKETS": "Linux; while a handshake is under way",
    "PADDING_BYTES": "paper 5.4.6",
    "INNER_MTU_BYTES": "ours: with a TURN channel it fits 1,500 bytes of IPv6",
}
SESSION_PLACES: Final = ("next", "current", "previous")
EXIT_CODES: Final = {
    ExitCode.OK: "all is well",
    ExitCode.FAILED: "it failed",
    ExitCode.USAGE: "the command line is wrong, or does not say which program is meant",
    ExitCode.NOT_RUNNING: "the program does not run, or is not connected",
    ExitCode.NOT_FOUND: "no such peer, actor or trace",
    ExitCode.TIMED_OUT: "no answer in time (`--timeout`)",
    ExitCode.PERMISSION: "not permitted",
    ExitCode.CONFIG_INVALID: "the configuration is not valid",
    ExitCode.UNACKNOWLEDGED: "left, but some goodbyes were not acknowledged; only with `--strict`",
    ExitCode.INTERRUPTED: "interrupted",
}


def diagram(transitions: Mapping[Any, Mapping[str, Any]]) -> str:
    """A table of transitions as a Mermaid state diagram: the first state is where it begins."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {state(next(iter(transitions)))}"]
    for source, moves in transitions.items():
        by_target: dict[str, list[str]] = {}
        for event, target in moves.items():
            by_target.setdefault(state(target), []).append(event)
        lines += [f"    {state(source)} --> {target}: {', '.join(events)}" for target, events in by_target.items()]
        if not moves:
            lines.append(f"    {state(source)} --> [*]")
    return "\n".join([*lines, "```"])


def state(value: Any) -> str:
    """A state's name as Mermaid takes it."""
    name: str = value.value if isinstance(value, Enum) else value
    return name.replace(" ", "_")


def table(head: tuple[str, str], rows: Iterator[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows)])


def number(name: str, value: float) -> str:
    """A constant as one reads it: with its unit, and large ones as they are made."""
    if name == "REJECT_AFTER_MESSAGES":
        return f"2^64 − 2^13 − {2**64 - 2**13 - int(value)}"
    if isinstance(value, int) and value > 2**20 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}{' ns' if name.endswith('_NS') else ''}"
    unit = " s" if name.endswith("_S") else " bytes" if name.endswith("_BYTES") else ""
    return f"{value:,g}{unit}"


def wireguard_numbers() -> str:
    """Every constant of `wireguard.timing`, and where it comes from."""
    rows = [
        f"| `{name.removesuffix('_S')}` | {number(name, getattr(wireguard_timing, name))} | {source} |"
        for name, source in WIREGUARD_NUMBERS.items()
    ]
    return "\n".join(["| constant | value | source |", "|---|---|---|", *rows])


def session_moves() -> Iterator[tuple[str, str, str]]:
    """(from, to, event) of a session in its tunnel: each event is made to happen to it at each place."""

    def make() -> Session:
        return Session(TransportKeys(bytes(32), bytes(32), 1, 1), Limits(), initiated=True, now=0.0)

    def first_packet(slots: KeySlots, mine: Session) -> None:
        slots.confirm(mine)

    def first_packet_of_another(slots: KeySlots, mine: Session) -> None:
        slots.next = make() if slots.next is None else slots.next
        slots.confirm(slots.next)

    events: dict[str, Callable[[KeySlots, Session], object]] = {
        "response received": lambda slots, _: slots.add_initiated(make()),
        "response sent": lambda slots, _: slots.add_responded(make()),
        "its first packet received": first_packet,
        "first packet of the next received": first_packet_of_another,
        "REJECT_AFTER_TIME": lambda slots, mine: slots.drop_expired(mine.expires_at),
    }
    yield "[*]", "current", "response received"
    yield "[*]", "next", "response sent"
    for place in SESSION_PLACES:
        for event, happen in events.items():
            slots, mine = KeySlots(), make()
            setattr(slots, place, mine)
            happen(slots, mine)
            now_at = next((other for other in SESSION_PLACES if getattr(slots, other) is mine), "[*]")
            if now_at != place and (place, event) != ("next", "first packet of the next received"):
                yield place, now_at, event


def session_diagram() -> str:
    """Those moves as a Mermaid state diagram."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for source, target, event in session_moves():
        arrows.setdefault((source, target), []).append(event)
    lines = [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def generated() -> dict[str, str]:
    """What is generated, by the name in its marker."""
    return {
        "connection": diagram(peer.TRANSITIONS),
        "session": session_diagram(),
        "wireguard numbers": wireguard_numbers(),
        "portal link": diagram(portal.TRANSITIONS),
        "candidate pair": diagram(PAIR_TRANSITIONS),
        "deadlines": table(("s", "for"), ((f"{getattr(timing, name):g}", text) for name, text in DEADLINES.items())),
        "reasons": table(("code", "reason"), ((f"{code}", f"`{reason}`") for reason, code in REASON_CODES.items())),
        "exit codes": table(("exit code", "means"), ((f"{code:d}", text) for code, text in EXIT_CODES.items())),
    }


_BLOCK = re.compile(r"(<!-- generated: ([^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_generated(text: str) -> str:
    """The document with everything between its markers made anew."""
    blocks = generated()
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n\n{match[3]}", text)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def fenced(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(path: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `exeunt` command line in a document."""
    for block in fenced(path, "sh"):
        for line in block.splitlines():
            yield from _exeunt_in(line)
    for text in re.findall(r"`(exeunt [a-z][^`]*)`", prose(path)):
        yield from _exeunt_in(text)


def _exeunt_in(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters, lexer.whitespace_split = "#", True
    command: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= set("();<>|&"):
            if command[:1] == ["exeunt"]:
                yield command[1:]
            command = []
        else:
            command.append(token)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        path = (document.parent / target).resolve() if target else document
        reached = path.exists() and path.is_relative_to(ROOT) and (not anchor or anchor in anchors(path))
        if not reached:
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"`((?:runtime|actors|clients|tests|docs|\.ci|\.pkg)/[\w./-]*)`", prose(document))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_that_are_shown_are_understood(document: Path) -> None:
    app = build()
    names = {command.words for command in COMMANDS}
    for arguments in commands(document):
        if tuple(arguments) in names or arguments == ["--help"]:
            continue  # it is only named
        app.parse_args(globals_last(arguments), print_error=False, exit_on_error=False)


def test_the_readme_shows_commands() -> None:
    assert len(list(commands(ROOT / "README.md"))) > 12


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_make_targets_that_are_named_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", document.read_text(), re.MULTILINE))
    assert {one or other for one, other in named} <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_what_is_generated_is_up_to_date(document: Path) -> None:
    assert document.read_text() == with_generated(document.read_text()), "run: python tests/test_docs.py"


def test_everything_that_is_generated_has_its_place() -> None:
    places = [match[2] for path in DOCUMENTS for match in _BLOCK.finditer(path.read_text())]
    assert sorted(places) == sorted(generated())
    assert set(EXIT_CODES) == set(ExitCode)


def test_the_design_explains_every_cause() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    assert [cause.value for cause in Cause if f"`{cause.value}`" not in design] == []


def test_wireguard_explains_every_number() -> None:
    numbers = {name for name in vars(wireguard_timing) if name.isupper()}
    assert numbers == set(WIREGUARD_NUMBERS)


def test_wireguard_explains_every_timer() -> None:
    page = (ROOT / "docs" / "wireguard.md").read_text()
    section = page.partition("\n## Timers\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| ([a-z ]+) \|", section, re.MULTILINE)
    assert named == ["timer", *(timer.value for timer in Timer)]


def test_the_tour_names_seven_files() -> None:
    tour = (ROOT / "docs" / "tour.md").read_text()
    named = re.findall(r"^(\d)\. `([\w/]+\.py)` ", tour, re.MULTILINE)
    assert [number for number, _ in named] == list("1234567")
    assert all((ROOT / path).exists() for _, path in named)


def test_decisions_are_numbered_and_have_their_parts() -> None:
    paths = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in paths] == list(range(1, len(paths) + 1))
    for path in paths:
        text = path.read_text()
        assert text.startswith(f"# {path.name[:4]} · "), path.name
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], path.name


@pytest.mark.slow
def test_the_readmes_example_runs(tmp_path: Path) -> None:
    (example,) = fenced(ROOT / "README.md", "python")
    (tmp_path / "counter.py").write_text(example)
    (command,) = re.findall(r"`python -c '(import asyncio, counter[^']*)'`", (ROOT / "README.md").read_text())
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Count(n=5)", "Outcome(failed=False, reason='shutdown', leftovers=())"]


if __name__ == "__main__":
    for path_ in DOCUMENTS:
        path_.write_text(with_generated(path_.read_text()))
