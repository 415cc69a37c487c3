"""Things named by text: `package.module:NAME`, as specs and configs name classes and tuples of messages."""

from __future__ import annotations

import importlib
import time
from typing import Any

from .codec import Codec
from .envelope import Message
from .errors import LocalError
from .facts import MESSAGES as FACTS
from .messages import MESSAGES


def load(path: str) -> Any:
    """Return what `package.module:name` names. Raises LocalError when there is no such thing."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LocalError(f"cannot load {path!r}: {error}") from error


def codec_for(paths: tuple[str, ...], *, clocks_differ: bool = False) -> Codec:
    """Build the codec that knows the runtime's messages and those that `paths` name. `clocks_differ`: between
    machines.
    """
    types: list[type[Message]] = [*MESSAGES, *FACTS]
    for path in paths:
        types.extend(load(path))
    return Codec(types, clock_ns=time.monotonic_ns if clocks_differ else None)
