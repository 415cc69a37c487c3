"""Python stacks, as py-spy prints them: a thread, the actor whose code runs there, the calls from the innermost out."""

import os
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache

from rich.console import Group, RenderableType
from rich.text import Text

from ..inspection_contract import Frame, Handling, ProcessStacks, ThreadStack, WaitingStack
from ..output import ACCENT
from .printable import printable, show_duration

_IDLE = frozenset({"select", "run_forever", "_worker", "wait", "accept", "_serve"})


def render(processes: Sequence[ProcessStacks]) -> RenderableType:
    """Process by process: its threads, then the handlers that wait and are on no thread."""
    parts: list[RenderableType] = []
    for process in processes:
        if parts:
            parts.append(Text())
        parts.append(Text.assemble((printable(process.worker), "bold"), (f"  pid {process.pid}", "dim")))
        for thread in process.threads:
            parts += _thread(thread)
        for waiting in process.waiting:
            parts += _waiting(waiting)
        if process.via == "signal" and process.began:
            parts += [Text(), Text("Begun and not ended, says the flight recorder:")]
            parts += [Text.assemble("  ", _who(one)) for one in process.began]
        if not process.threads and not process.waiting:
            parts.append(Text("  Nothing: it waits for messages.", style="dim"))
    return Group(*parts)


def _thread(thread: ThreadStack) -> list[RenderableType]:
    name = f'Thread {thread.native_id or "–"} "{printable(thread.thread)}"'
    line = Text.assemble((name, ""), ("  loop" if thread.is_loop else "", "dim"))
    if thread.handling is not None:
        line.append_text(Text.assemble("  ", _who(thread.handling)))
    elif _is_idle(thread):
        line.append("  idle", style="dim")
    return [Text(), line, *_frames(thread.frames)]


def _waiting(stack: WaitingStack) -> list[RenderableType]:
    line = Text.assemble("Waiting  ", _who(stack.handling))
    if stack.waits_for:
        line.append(f"  for a {printable(stack.waits_for)}", style="dim")
    return [Text(), line, *_frames(stack.frames)]


def _who(handling: Handling) -> Text:
    who = Text(printable(handling.actor), style=ACCENT)
    what = f" handles {printable(handling.message)}" if handling.message else " in a hook"
    since = "" if handling.since_s is None else f" for {show_duration(handling.since_s)}"
    return who.append(f"{what}{since}", style="default")


def _frames(frames: Sequence[Frame]) -> list[Text]:
    """The calls. Those of the program stand out from those of Python and its packages."""
    lines: list[Text] = []
    for frame in frames:
        own = _is_own(frame.file)
        text = Text(f"    {printable(frame.function)}", style="bold" if own else "dim", overflow="fold")
        text.append(f" ({_short(frame.file)}:{frame.line})", style="not bold" if own else "")
        lines.append(text)
        if own and frame.source:
            lines.append(Text(f"        {printable(frame.source)}", style="dim", no_wrap=True, overflow="ellipsis"))
    return lines


def _is_idle(thread: ThreadStack) -> bool:
    innermost = thread.frames[0].function.rpartition(".")[2] if thread.frames else ""
    # uvloop waits in C: what is left to see is who runs it, `main` of the worker.
    return innermost in _IDLE or (thread.is_loop and innermost in {"main", "run"})


def _is_own(file: str) -> bool:
    return not any(file.startswith(root) for root in _library_roots()) and not file.startswith("<")


@cache
def _library_roots() -> tuple[str, ...]:
    # This package as well: whoever looks at their program's stack knows how the runtime calls a handler.
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    runtime = os.path.join(package, "runtime")
    return (runtime, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sys.base_prefix)


def _short(file: str) -> str:
    """The path below where libraries are, or below the working directory; else in full."""
    for root in (os.getcwd(), *sorted(_library_roots(), key=len, reverse=True)):
        if file.startswith(root + os.sep):
            return printable(os.path.relpath(file, root))
    return printable(file)
