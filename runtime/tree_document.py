"""The document of `exeunt tree`: who supervises whom, and which worker hosts whom. Pure.

A program has two trees: that of supervisors and actors, and that of its workers. An actor is in both: it has a
supervisor, and it lives somewhere. So it is described once for each. `supervises` of the document's root is the first
tree; `children` is the second, with each worker's actors below it, also those that nobody keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .family import TreeNode
from .portrait import name_of

_STATES = {"waiting": "backoff", "restarting": "starting"}

Row = Mapping[str, Any]


def tree_document(
    actors: TreeNode, workers: TreeNode, rows: Sequence[Row], lives: Mapping[str, Row], *, leaving: bool
) -> dict[str, Any]:
    """Both trees. `rows` are those of `ps`; `lives` has each worker's `state` and `pid`."""
    by_address = {row["address"]: row for row in rows}
    supervised = [_member(child, actors.id, by_address) for child in actors.children]
    restarts = {address: found["restarts"] for one in supervised for address, found in _actors_of(one).items()}
    kept = {address: found["restart"] for one in supervised for address, found in _actors_of(one).items()}
    hosts = [
        {
            "name": worker.id,
            "kind": "worker",
            **lives[worker.id],
            "restart": worker.restart,
            "restarts": worker.restarts,
            "children": [
                _actor(row, restart=kept.get(row["address"]), restarts=restarts.get(row["address"], 0))
                for row in rows
                if row["worker"] == worker.id and name_of(row["address"]) != "host"
            ],
        }
        for worker in workers.children
        if worker.id in lives
    ]
    return {
        "name": actors.id,
        "kind": "supervisor",
        "state": "stopping" if leaving else "running",
        "strategy": actors.strategy,
        "worker_strategy": workers.strategy,
        "children": hosts,
        "supervises": supervised,
    }


def address_of(leaf: TreeNode, program: str) -> str:
    """Return the address of an actor in the tree."""
    return f"{program}/{leaf.worker}/{leaf.id}"


def leaves(node: TreeNode) -> list[TreeNode]:
    """Return the actors (or workers) below a node, from left to right."""
    return [node] if node.kind != "supervisor" else [leaf for child in node.children for leaf in leaves(child)]


def branches(node: TreeNode) -> list[TreeNode]:
    """Return the supervisors below a node."""
    return [one for child in node.children if child.kind == "supervisor" for one in (child, *branches(child))]


def _member(node: TreeNode, program: str, rows: Mapping[str, Row]) -> dict[str, Any]:
    if node.kind == "supervisor":
        return {
            "name": node.id,
            "kind": "supervisor",
            "state": _STATES.get(node.state, node.state),
            "strategy": node.strategy,
            "restart": node.restart,
            "restarts": node.restarts,
            "children": [_member(child, program, rows) for child in node.children],
        }
    row = rows.get(address_of(node, program))
    if row is None:  # it has come into the tree since
        row = {"address": address_of(node, program), "kind": None, "worker": node.worker, "answering": True}
        row |= {"state": _STATES.get(node.state, node.state)}
    return _actor(row, restart=node.restart, restarts=node.restarts)


def _actor(row: Row, *, restart: str | None, restarts: int) -> dict[str, Any]:
    return {
        "name": name_of(row["address"]),
        "kind": "actor",
        "state": row["state"],
        "class": row["kind"],
        "address": row["address"],
        "worker": row["worker"],
        "restart": restart,
        "restarts": restarts,
        "answering": row["answering"],
    }


def _actors_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The actors of a described tree, by address."""
    if document["kind"] == "actor":
        return {document["address"]: document}
    return {address: one for child in document["children"] for address, one in _actors_of(child).items()}
