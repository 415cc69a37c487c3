"""What the feed tells the screen. Facts, in the past tense; each is complete in itself."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ..contract import Problem, Status
from ..inspection_contract import ActorRow, TreeNode

PS, TREE, STATUS = "ps", "tree", "status"


class StatusAnswer(Status, frozen=True, kw_only=True):
    """A program's answer to `status`: the document's data, and the problems that go beside it."""

    problems: tuple[Problem, ...] = ()


class Joined(Struct, frozen=True, kw_only=True):
    """The program answers: for the first time, or again."""

    instance: str
    program: str
    pid: int
    version: str
    started_at: str | None = None


class Looked(Struct, frozen=True, kw_only=True):
    """The answers to what was asked. What was not asked, or not answered, is None."""

    at_s: float
    """Monotonic, when the answers were there."""
    actors: list[ActorRow] | None = None
    tree: TreeNode | None = None
    status: StatusAnswer | None = None
    absent: frozenset[str] = frozenset()
    """Commands that this program does not offer."""
    troubles: dict[str, str] = {}
    """Why a command that was asked has no answer."""


class Happened(Struct, frozen=True):
    """Events, oldest first: one as it happens, or those that happened before we came."""

    events: list[dict[str, Any]]


class Left(Struct, frozen=True):
    """The program does not answer any more. The feed goes on trying."""

    why: str


Fact = Joined | Looked | Happened | Left
