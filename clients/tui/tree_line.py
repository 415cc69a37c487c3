"""The supervision tree as lines. Filtered, it keeps what leads to what was found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..inspection_contract import TreeNode
from ..views.supervision import arranged
from .filter import Filter


class TreeLine(NamedTuple):
    """One node, drawn where it belongs."""

    path: str
    """Its names from the root; what it is known by."""
    branch: str
    node: TreeNode
    worker: str | None
    """The worker that it is, or lives in."""

    @property
    def target(self) -> str | None:
        """What `restart` calls it; None for the program itself and for its workers as a whole."""
        node = self.node
        if node.kind != "supervisor":
            return node.name
        return None if node.restart is None else f"{self.path.partition('/')[0]}/{node.name}"


def tree_lines(root: TreeNode, filter: Filter = Filter()) -> list[TreeLine]:  # noqa: A002, B008 - immutable
    """Every node that the filter admits, and those above it."""
    return list(_lines(arranged(root), root.name, branch="", indent="", worker=None, shown=filter))


def _lines(
    node: TreeNode, path: str, *, branch: str, indent: str, worker: str | None, shown: Filter
) -> Iterator[TreeLine]:
    worker = node.name if node.kind == "worker" else node.worker or worker
    yield TreeLine(path, branch, node, worker)
    kept = [child for child in node.children if _found(child, shown)]
    for number, child in enumerate(kept):
        last = number == len(kept) - 1
        yield from _lines(
            child,
            f"{path}/{child.name}",
            branch=f"{indent}{'└ ' if last else '├ '}",
            indent=f"{indent}{'  ' if last else '│ '}",
            worker=worker,
            shown=shown,
        )


def _found(node: TreeNode, shown: Filter) -> bool:
    return shown.admits(node.name, node.kind, node.state) or any(_found(child, shown) for child in node.children)
