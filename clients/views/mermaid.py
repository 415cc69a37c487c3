"""A trace as a Mermaid sequence diagram, for issues and documents (mermaid.js.org, "sequenceDiagram")."""

from exeunt.runtime.trace import Trace

from .hops import Hop, hops, interval, names, title
from .printable import printable


def render(trace: Trace) -> str:
    """The diagram's source. A lifeline is activated from an ask to its answer."""
    found = hops(trace)
    short = names(trace)
    aliases = {address: f"a{number}" for number, address in enumerate(short)}
    activated = _activated(found)
    lines = ["sequenceDiagram"]
    lines += [f"    participant {aliases[address]} as {_escaped(printable(name))}" for address, name in short.items()]
    for hop in found:
        span = hop.span
        note = "" if span.outcome == "ok" else f", {span.outcome}"
        lines.append(
            f"    {aliases[span.from_]}{_arrow(hop)}{activated.get(span.id, '')}{aliases[span.to]}: "
            f"{_escaped(title(hop))} (+{interval(hop.at_ms)}{note})"
        )
    return "\n".join(lines)


def _activated(found: list[Hop]) -> dict[int, str]:
    """`+` for asks and `-` for their answers, where both are in the record and in this order, or Mermaid refuses."""
    seen: set[int] = set()
    signs: dict[int, str] = {}
    for hop in found:
        if hop.is_answer and hop.cause is not None and hop.cause.id in seen and hop.cause.to == hop.span.from_:
            seen.remove(hop.cause.id)
            signs |= {hop.cause.id: "+", hop.span.id: "-"}
        elif hop.span.kind == "ask":
            seen.add(hop.span.id)
    return signs


def _arrow(hop: Hop) -> str:
    dashes = "--" if hop.is_answer else "-"
    return f"{dashes}x" if hop.span.outcome in {"failed", "dropped"} else f"{dashes}>>"


def _escaped(text: str) -> str:
    # Mermaid ends a statement at ";" and reads "#NAME;" as an entity.
    return "".join({"#": "#35;", ";": "#59;"}.get(character, character) for character in text)
