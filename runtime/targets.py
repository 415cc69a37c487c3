"""Which actor or worker a person means.

`node/worker/name` is an address; `worker/name` and `name` will do where only one fits. Workers and supervisors are
called by their names too. Where another has the same, `name/` means the worker, and `node/name` the supervisor.
Whoever is unknown gets the names that come closest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from .control import ControlError

_LISTED = 5


class Target(NamedTuple):
    """What was meant."""

    kind: Literal["actor", "worker", "supervisor"]
    name: str
    """An address, a worker's name, or `node/name` of a supervisor."""


def find(text: str, addresses: Iterable[str], workers: Iterable[str] = (), supervisors: Iterable[str] = ()) -> Target:
    """Return the only one that `text` can mean. Raises ControlError, `no_such_actor` or `ambiguous_actor`.

    Without `workers` and `supervisors` (each as `node/name`) only actors are meant.
    """
    addresses, workers, supervisors = list(dict.fromkeys(addresses)), list(workers), list(supervisors)
    if text.endswith("/") and text[:-1] in workers:
        return Target("worker", text[:-1])
    if text in addresses:
        return Target("actor", text)
    if text in supervisors:
        return Target("supervisor", text)
    found = [Target("worker", worker) for worker in workers if worker == text]
    found += [Target("supervisor", one) for one in supervisors if one.endswith(f"/{text}")]
    found += [Target("actor", address) for address in addresses if address.endswith(f"/{text}")]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(map(_written, found))
        raise ControlError("ambiguous_actor", f"{text} may mean {several}.", "Write one of these.")
    what = "actor"
    if workers:
        what = "actor, worker or supervisor" if supervisors else "worker or actor"
    hint = _closest(text, [*addresses, *supervisors], workers)
    raise ControlError("no_such_actor", f"There is no {what} {text}.", hint)


def _written(target: Target) -> str:
    match target.kind:
        case "worker":
            return f"{target.name}/ (the worker)"
        case "supervisor":
            return f"{target.name} (the supervisor)"
        case "actor":
            return target.name


def _closest(text: str, addresses: Sequence[str], workers: Sequence[str]) -> str:
    """Name those that may have been meant, best first; by their last parts too, for that is what people type."""
    by_name = {address.rpartition("/")[2]: address for address in addresses}
    by_path = {address.partition("/")[2]: address for address in addresses}
    known = {**by_name, **by_path, **{address: address for address in addresses}, **{one: one for one in workers}}
    close = difflib.get_close_matches(text, known, n=_LISTED, cutoff=0.5)
    names = list(dict.fromkeys(known[one] for one in close))
    return f"Did you mean {' or '.join(names)}?" if names else "exeunt ps lists those there are."
