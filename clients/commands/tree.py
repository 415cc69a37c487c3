"""`exeunt tree`: who supervises whom."""

from ..inspection_contract import TreeNode
from ..instances import connect, pick
from ..output import DEFAULTS, Options, emit
from ..paths import current


def run(*, options: Options = DEFAULTS) -> None:
    """Show the supervision tree of a program.

    Args:
        options: The options that every command takes.
    """
    from ..views import supervision as view

    with connect(pick(current(), options), options) as program:
        root = program.request(TreeNode, "tree")
    emit("exeunt.tree/1", root, options=options, human=lambda: view.render(root))
