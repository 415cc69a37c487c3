"""`exeunt demo`: portal, relay, gateway and client on this machine; connect, transfer, leave; explain each ending."""

import os
import signal
from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from exeunt.runtime.trace import Span, Trace

from ..contract import Demo, Ending
from ..demo.home import make_home, remove
from ..demo.narrator import Narrator
from ..demo.scenes import SCENES, Result, Scene, enter, leave_trace
from ..demo.stage import Stage, StageError
from ..lab import LabError, LabUnavailable, enter_user_namespace
from ..output import DEFAULTS, ExitCode, Options, emit, fail

_LEAVE_STORY = frozenset(
    {"StopSession", "PortalLeave", "PortalLeft", "Close", "PeerEnded", "Terminated", "StreamEnded", "Taken"}
)
"""The messages of a leave that a small diagram shows; `exeunt trace show` has them all."""


def run(
    *,
    scene: Scene = "sign-out",
    megabytes: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 12,
    keep: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> int:
    """Show the main job on this machine: connect, transfer, leave, and explain how each connection ended.

    Everything happens in network namespaces that the demo makes itself and that vanish with it. It needs root, or a
    system that lets users make namespaces.

    Args:
        scene: How it ends.
        megabytes: How much is downloaded.
        keep: Keep the programs' homes (logs, traces, endings) and say where they are.
        options: What every command takes.
    """
    if os.geteuid() != 0:
        try:
            enter_user_namespace()
        except LabUnavailable as error:
            fail("permission", f"The demo cannot make its laboratory: {error}.", error.hint)
    signal.signal(signal.SIGTERM, _interrupt)
    narrator = Narrator(options)
    script = SCENES[scene]
    narrator.title(f"exeunt demo · {scene}", script.explanation)
    home = make_home(keep=keep)
    try:
        stage = Stage(home, gateways=script.gateways, keep_home=keep)
    except (LabError, OSError) as error:
        remove(home)
        fail("failed", f"The laboratory could not be built: {error}", getattr(error, "hint", None))
    except BaseException:
        remove(home)
        raise
    try:
        with stage:
            result, trace = _play(stage, narrator, scene, megabytes * 1_000_000)
            stage.end_programs()
            endings = _endings(stage)
    except (StageError, TimeoutError) as error:
        fail("failed", f"The scene did not come off: {error}")
    return _report(stage, narrator, options, result=result, endings=endings, trace=trace, keep=keep)


def _play(stage: Stage, narrator: Narrator, scene: Scene, size: int) -> tuple[Result, Trace | None]:
    enter(stage, narrator)
    result = SCENES[scene].play(stage, narrator, size)
    return result, leave_trace(stage, result.trace)


def _endings(stage: Stage) -> list[Ending]:
    """Return the endings of both sides, in order of time, as the contract has them."""
    both = [*stage.client.endings(), *(one for gateway in stage.gateways for one in gateway.endings())]
    return [msgspec.convert(msgspec.to_builtins(one), Ending) for one in sorted(both, key=lambda one: one.ended_at)]


def _report(
    stage: Stage,
    narrator: Narrator,
    options: Options,
    *,
    result: Result,
    endings: list[Ending],
    trace: Trace | None,
    keep: bool,
) -> int:
    from ..views import endings as endings_view
    from ..views import sequence

    narrator.show("How the connections ended, as each side saw it", endings_view.render(endings))
    if trace is not None:
        story = Trace(trace.id, [span for span in trace.spans if _is_of_the_story(span)])
        narrator.show("How the client left: what caused what", sequence.render(story, width=narrator.width))
    narrator.pause()
    leftovers = stage.leftovers()
    left = msgspec.to_builtins(leftovers)
    narrator.say(
        "Nothing is left: no process, namespace, device, route, rule or socket." if not left else f"LEFT: {left}"
    )
    if keep:
        narrator.say(f"Logs, traces and endings are kept in {stage.home}.")
    document = Demo(
        connect_ms=round(result.download.connect_ms, 3),
        first_byte_ms=round(result.download.first_byte_ms, 3),
        download_bytes=result.download.received,
        download_mbit_s=round(result.download.mbit_s, 3),
        sha256_ok=result.download.sha256_ok,
        path="relay" if result.path == "relay" else "direct",
        sign_out_ms=round(result.sign_out_ms, 3),
        endings=endings,
        drained=result.drained,
        workers=stage.client.workers,
        leftovers=leftovers,
    )
    if options.json:
        emit("exeunt.demo/1", document, options=options)
    for complaint in result.complaints:
        narrator.say(complaint, mark="✖", style="red")
    return ExitCode.OK if not result.complaints and not left else ExitCode.FAILED


def _is_of_the_story(span: Span) -> bool:
    if span.message == "ActorExited":
        return span.from_.endswith("/event-stream")  # the one that the supervisor waits for
    return span.message in _LEAVE_STORY and span.kind != "system" and span.outcome != "dropped"


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
