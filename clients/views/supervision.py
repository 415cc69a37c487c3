"""The supervision tree: who starts, watches and restarts whom."""

from rich.text import Text

from ..inspection_contract import TreeNode
from ..output import ACCENT
from .design import state
from .printable import printable


def render(root: TreeNode) -> Text:
    """The tree, one line for each supervisor, worker and actor."""
    lines: list[Text] = [_line(root, "")]
    _add_children(lines, root, "")
    return Text("\n").join(lines)


def _add_children(lines: list[Text], node: TreeNode, indent: str) -> None:
    for number, child in enumerate(node.children):
        last = number == len(node.children) - 1
        lines.append(_line(child, indent + ("└── " if last else "├── ")))
        _add_children(lines, child, indent + ("    " if last else "│   "))


def _line(node: TreeNode, branch: str) -> Text:
    line = Text(branch, style="dim", no_wrap=True, overflow="ellipsis")
    line.append_text(state(node.state, with_word=False))
    style = {"supervisor": "bold", "worker": "bold"}.get(node.kind, ACCENT)
    line.append(f" {printable(node.name)}", style=f"not dim {style}")
    line.append(f"  {' · '.join(details)}" if (details := _details(node)) else "", style="dim")
    if node.restarts:
        line.append(f"  {node.restarts} restart{'' if node.restarts == 1 else 's'}", style="not dim yellow")
    if node.state not in {"running", "starting"}:
        line.append(f"  {printable(node.state)}", style=f"not dim {state(node.state).style}")
    if not node.answering:
        line.append("  does not answer", style="not dim yellow")
    return line


def _details(node: TreeNode) -> list[str]:
    details = [printable(node.class_)] if node.class_ else []
    details += [printable(node.strategy)] if node.strategy else []
    details += [printable(node.restart)] if node.restart else []
    return details + ([f"pid {node.pid}"] if node.pid is not None else [])
