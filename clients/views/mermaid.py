"""A trace as a Mermaid sequence diagram, for issues and documents (mermaid.js.org, "sequenceDiagram")."""

from exeunt.runtime.trace import Span, Trace

from .hops import hops, interval, names
from .printable import printable


def render(trace: Trace) -> str:
    """The diagram's source."""
    short = names(trace)
    aliases = {address: f"a{number}" for number, address in enumerate(short)}
    lines = ["sequenceDiagram"]
    lines += [f"    participant {aliases[address]} as {_escaped(name)}" for address, name in short.items()]
    for hop in hops(trace):
        span = hop.span
        note = "" if span.outcome == "ok" else f", {span.outcome}"
        lines.append(
            f"    {aliases[span.from_]}{_arrow(span)}{aliases[span.to]}: "
            f"{_escaped(span.message)} (+{interval(hop.at_ms)}{note})"
        )
    return "\n".join(lines)


def _arrow(span: Span) -> str:
    dashes = "--" if span.kind in {"reply", "failure"} else "-"
    return f"{dashes}x" if span.outcome in {"failed", "dropped"} else f"{dashes}>>"


def _escaped(text: str) -> str:
    # Mermaid ends a statement at ";" and reads "#NAME;" as an entity.
    return "".join({"#": "#35;", ";": "#59;"}.get(character, character) for character in printable(text))
