"""Which actor or worker a person means.

`node/worker/name` is an address; `worker/name` and `name` will do where only one fits. A worker is called by its
name too; where an actor has the same, `name/` means the worker. Whoever is unknown gets the names that come closest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from .control import ControlError

_LISTED = 5


class Target(NamedTuple):
    """What was meant."""

    kind: Literal["actor", "worker"]
    name: str
    """An address, or a worker's name."""


def find(text: str, addresses: Iterable[str], workers: Iterable[str] = ()) -> Target:
    """Return the only actor or worker that `text` can mean. Raises ControlError, `no_such_actor` or `ambiguous_actor`.

    Without `workers` only actors are meant.
    """
    addresses, workers = list(dict.fromkeys(addresses)), list(workers)
    if text.endswith("/") and text[:-1] in workers:
        return Target("worker", text[:-1])
    if text in addresses:
        return Target("actor", text)
    found = [Target("worker", worker) for worker in workers if worker == text]
    found += [Target("actor", address) for address in addresses if address.endswith(f"/{text}")]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{one.name}/ (the worker)" if one.kind == "worker" else one.name for one in found)
        raise ControlError("ambiguous_actor", f"{text} may mean {several}.", "Write one of these.")
    what = "worker or actor" if workers else "actor"
    raise ControlError("no_such_actor", f"There is no {what} {text}.", _closest(text, addresses, workers))


def _closest(text: str, addresses: Sequence[str], workers: Sequence[str]) -> str:
    """Name those that may have been meant, best first; by their last parts too, for that is what people type."""
    by_name = {address.rpartition("/")[2]: address for address in addresses}
    by_path = {address.partition("/")[2]: address for address in addresses}
    known = {**by_name, **by_path, **{address: address for address in addresses}, **{one: one for one in workers}}
    close = difflib.get_close_matches(text, known, n=_LISTED, cutoff=0.5)
    names = list(dict.fromkeys(known[one] for one in close))
    return f"Did you mean {' or '.join(names)}?" if names else "exeunt ps lists those there are."
