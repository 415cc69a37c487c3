"""The documents of inspection as plain data, made from what was seen: pure functions.

Their fields are those of `exeunt.clients.contract`; a test compares the two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .child_spec import ChildSpec
from .dead_letters import DeadLetter
from .events import Event
from .facts import Detail
from .log import rfc3339
from .messages import ActorRow, Description
from .stacks import Frame, Handling, Stacks
from .trace import Span

_SECRETS = ("token", "secret", "password", "key")
_ARGUMENT_CHARS = 300


def name_of(address: str) -> str:
    """Return the last part of an address."""
    return address.rpartition("/")[2]


def living_row(
    actor: ActorRow, worker: str, *, restarts: int, usage: Mapping[str, Any], epoch: int | None, answering: bool
) -> dict[str, Any]:
    """One line of `ps`."""
    return {
        "address": actor.address,
        "kind": actor.kind,
        "state": actor.state,
        "worker": worker,
        "mailbox": actor.mailbox,
        "mailbox_bound": actor.mailbox_bound,
        "handled_total": actor.handled_total,
        "handling": actor.handling or None,
        "incarnation": actor.incarnation,
        "restarts": restarts,
        "since_s": _age_s(actor.started_ns),
        "worker_epoch": epoch,
        "answering": answering,
        **usage,
    }


def kept_row(
    address: str,
    spec: ChildSpec,
    state: str,
    *,
    restarts: int,
    since_ns: int,
    incarnation: int,
    epoch: int | None,
    answering: bool,
    usage: Mapping[str, Any],
) -> dict[str, Any]:
    """One line of `ps` for a child that does not live just now."""
    return {
        "address": address,
        "kind": spec.start.rpartition(":")[2],
        "state": state,
        "worker": spec.worker,
        "mailbox": 0,
        "mailbox_bound": 0,
        "handled_total": 0,
        "handling": None,
        "incarnation": incarnation,
        "restarts": restarts,
        "since_s": _age_s(since_ns) if since_ns else 0.0,
        "worker_epoch": epoch,
        "answering": answering,
        **usage,
    }


def spec_document(spec: ChildSpec) -> dict[str, Any]:
    """What a supervisor was told about a child; arguments that may be secrets are left out."""
    return {
        "start": spec.start,
        "args": {name: _argument(name, value) for name, value in spec.args.items()},
        "restart": str(spec.restart),
        "shutdown_ms": spec.shutdown_ms,
        "significant": spec.significant,
    }


def detail_document(detail: Detail | None) -> dict[str, Any]:
    """The mailbox of an actor."""
    if detail is None:
        return {"waiting": 0, "bound": 0, "policy": "", "rejected_total": 0, "dropped_total": 0}
    return {
        "waiting": detail.row.mailbox,
        "bound": detail.row.mailbox_bound,
        "policy": detail.mailbox_policy,
        "rejected_total": detail.rejected_total,
        "dropped_total": detail.dropped_total,
    }


def message_document(span: Span) -> dict[str, Any]:
    """One message that an actor was sent."""
    return {
        "at": rfc3339(span.first_ns),
        "message": span.message,
        "from": span.from_,
        "kind": span.kind,
        "trace": f"{span.trace:016x}",
        "count": span.count,
        "queued_ms": _between_ms(span.received_ns, span.started_ns),
        "ran_ms": _between_ms(span.started_ns, span.ended_ns),
        "outcome": span.outcome,
    }


def event_document(event: Event) -> dict[str, Any]:
    """One event: `type`, `at`, `of`, and what it has beside these."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name not in {"of", "at_ns"}}
    return {"type": type(event).__name__, "at": rfc3339(event.at_ns), "of": event.of, **msgspec.to_builtins(fields)}


def letter_document(letter: DeadLetter, worker: str) -> dict[str, Any]:
    """One dead letter."""
    return {
        "at": rfc3339(letter.at_ns),
        "from": letter.sender,
        "to": letter.to,
        "message": letter.message,
        "reason": letter.reason,
        "trace": f"{letter.trace:016x}",
        "worker": worker,
    }


def wakeups_document(worker: str, description: Description, pid: int | None) -> dict[str, Any]:
    """What woke one worker, the most frequent cause first."""
    counts = sorted(description.wakeups.items(), key=lambda one: (-one[1], one[0]))
    return {"worker": worker, "pid": pid, "over_s": round(description.wakeups_over_s, 3), "counts": dict(counts)}


def stacks_document(worker: str, stacks: Stacks, began: Iterable[Span]) -> dict[str, Any]:
    """The stacks of one process. `began`: what its ring says is being handled, whence since when is known."""
    spans = {span.to: span for span in began}
    return {
        "worker": worker,
        "pid": stacks.pid,
        "via": stacks.via,
        "threads": [
            {
                "thread": thread.thread,
                "native_id": thread.native_id or None,
                "is_loop": thread.is_loop,
                "handling": _handling(thread.handling, spans),
                "frames": list(map(_frame, thread.frames)),
            }
            for thread in stacks.threads
        ],
        "waiting": [
            {
                "handling": _handling(stack.handling, spans),
                "waits_for": stack.waits_for or None,
                "frames": list(map(_frame, stack.frames)),
            }
            for stack in stacks.waiting
        ],
        "began": [_handling(Handling(span.to, span.message, span.from_, span.trace), spans) for span in spans.values()],
    }


def _handling(handling: Handling | None, spans: Mapping[str, Span]) -> dict[str, Any] | None:
    if handling is None:
        return None
    span = spans.get(handling.actor)
    known = span is not None and span.message == handling.message and span.started_ns is not None
    return {
        "actor": handling.actor,
        "message": handling.message or None,
        "from": handling.sender or None,
        "trace": f"{handling.trace:016x}" if handling.trace else None,
        "since_s": _age_s(span.started_ns or 0) if known and span is not None else None,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    return {"file": frame.file, "line": frame.line, "function": frame.function, "source": frame.source}


def _argument(name: str, value: Any) -> Any:
    if any(word in name.lower() for word in _SECRETS) and not name.lower().endswith(("_file", "_path")):
        return "(hidden)"
    text = repr(value)
    return value if len(text) <= _ARGUMENT_CHARS else f"{text[:_ARGUMENT_CHARS]}…"


def _age_s(since_ns: int) -> float:
    return round(max(0.0, (time.time_ns() - since_ns) / 1e9), 3)


def _between_ms(begin_ns: int | None, end_ns: int | None) -> float | None:
    return None if begin_ns is None or end_ns is None else round(max(0.0, (end_ns - begin_ns) / 1e6), 3)
