"""The supervision tree: who starts, watches and restarts whom, and where everybody lives."""

from msgspec.structs import replace
from rich.text import Text

from ..inspection_contract import TreeNode
from ..output import ACCENT
from .design import state
from .printable import printable


def render(root: TreeNode) -> Text:
    """The tree, one line for each supervisor, actor and worker."""
    root = arranged(root)
    lines: list[Text] = [_line(root, "")]
    _add_children(lines, root, "")
    return Text("\n").join(lines)


def arranged(root: TreeNode) -> TreeNode:
    """The tree as people read it, each actor once: first who is supervised, below their supervisors; then the workers,
    with those that nobody supervises below them. A program without supervised actors is as it was.
    """
    if not root.supervises:
        return root
    workers = [
        replace(worker, children=[actor for actor in worker.children if actor.restart is None])
        for worker in root.children
    ]
    below = [*root.supervises]
    if workers:
        below.append(
            TreeNode(
                name="workers",
                kind="supervisor",
                state=root.state if all(one.state == "running" for one in workers) else "starting",
                strategy=root.worker_strategy,
                children=workers,
            )
        )
    return replace(root, children=below, supervises=[])


def _add_children(lines: list[Text], node: TreeNode, indent: str) -> None:
    for number, child in enumerate(node.children):
        last = number == len(node.children) - 1
        lines.append(_line(child, indent + ("└── " if last else "├── "), within=node))
        _add_children(lines, child, indent + ("    " if last else "│   "))


def _line(node: TreeNode, branch: str, within: TreeNode | None = None) -> Text:
    line = Text(branch, style="dim", no_wrap=True, overflow="ellipsis")
    line.append_text(state(node.state, with_word=False))
    style = {"supervisor": "bold", "worker": "bold"}.get(node.kind, ACCENT)
    line.append(f" {printable(node.name)}", style=f"not dim {style}")
    line.append(f"  {' · '.join(details)}" if (details := _details(node, within)) else "", style="dim")
    if node.restarts:
        line.append(f"  {node.restarts} restart{'' if node.restarts == 1 else 's'}", style="not dim yellow")
    if node.state not in {"running", "starting"}:
        line.append(f"  {printable(node.state)}", style=f"not dim {state(node.state).style}")
    if not node.answering:
        line.append("  does not answer", style="not dim yellow")
    return line


def _details(node: TreeNode, within: TreeNode | None) -> list[str]:
    lives_elsewhere = within is None or within.kind != "worker"
    details = [printable(node.class_)] if node.class_ else []
    details += [f"in {printable(node.worker)}"] if node.worker and lives_elsewhere else []
    details += [printable(node.strategy)] if node.strategy else []
    details += [printable(node.restart)] if node.restart else []
    return details + ([f"pid {node.pid}"] if node.pid is not None else [])
