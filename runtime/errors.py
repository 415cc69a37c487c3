"""What can go wrong in the runtime, split by whose fault it is.

```
ExeuntError
├── LocalError            you misused the runtime: fix the caller
│   ├── UnknownMessage      the type is not registered with the codec, or the actor does not handle it
│   ├── Unencodable         a field's value cannot be written as msgpack, or the message is too large
│   ├── NameTaken           an actor of that name already lives in this worker
│   └── AskCycle            the ask would have waited for itself
├── Unavailable           the world: nobody did anything wrong, try again or give up
│   ├── ActorDead           no such actor (any more), or its worker is gone
│   ├── MailboxFull         the recipient's mailbox has reached its bound
│   └── AskTimeout          no answer within the deadline
├── RemoteFailure         the handler at the other end raised; type, text and traceback are carried as data
└── Refused               the handler at the other end said no, on purpose; it goes on living
```

Errors cross processes as data (`Failure`), never as pickles.
"""

from __future__ import annotations

import traceback as tracebacks

import msgspec


class ExeuntError(Exception):
    """The root of every error that the runtime raises."""


class LocalError(ExeuntError):
    """The caller misused the runtime."""


class UnknownMessage(LocalError):
    """A message type that the codec, or the recipient, does not know."""


class Unencodable(LocalError):
    """A message that cannot be written as msgpack, or is larger than any message may be."""


class NameTaken(LocalError):
    """An actor of that name already lives in this worker."""


class AskCycle(LocalError):
    """The recipient waits, in what it handles now, for the answer of this very ask; the message spells the cycle."""


class Unavailable(ExeuntError):
    """The world is not as wished; nobody did anything wrong."""


class ActorDead(Unavailable):
    """The recipient does not live (any more), or its worker is gone."""


class MailboxFull(Unavailable):
    """The recipient's mailbox has reached its bound; the message was not taken."""


class AskTimeout(Unavailable, TimeoutError):
    """No answer came within the deadline. The message may still be handled."""


class RemoteFailure(ExeuntError):
    """The handler raised. `failure` carries what is known about it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.type}: {failure.message}")
        self.failure = failure


class Refused(ExeuntError):
    """Raise it in a handler to refuse an ask without failing: the asker gets it, the actor lives on.

    `code` is for programs (`no_such_peer`), `message` for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Failure(msgspec.Struct, frozen=True, array_like=True, tag_field="tag", tag="Failure/1"):
    """An exception as data."""

    type: str
    """The class's name: one of this module's, or any other for `RemoteFailure`."""
    message: str
    traceback: str = ""
    code: str = ""


_TRACEBACK_LIMIT = 8_000  # characters; a deep recursion's traceback would otherwise fill a frame
_MESSAGE_LIMIT = 2_000  # characters; more than anybody reads


def to_failure(error: BaseException) -> Failure:
    """Turn an exception into data, whatever it is. Its traceback is kept as text, bounded to 8,000 characters."""
    if isinstance(error, RemoteFailure):
        return error.failure
    text = "".join(tracebacks.format_exception(error))[-_TRACEBACK_LIMIT:]
    code = error.code if isinstance(error, Refused) else ""
    return Failure(type(error).__name__, _plain(_text(error)[:_MESSAGE_LIMIT]), _plain(text), _plain(str(code)))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - its own __str__ raises; the asker is to be answered all the same
        return f"(its __str__ raised {type(broken).__name__})"


def _plain(text: str) -> str:
    """Replace what UTF-8 cannot carry: a file name's undecodable bytes become lone surrogates in an OSError's text."""
    return text.encode(errors="replace").decode()


def to_error(failure: Failure) -> ExeuntError:
    """Turn data back into the exception that an asker gets."""
    if failure.type == "Refused":
        return Refused(failure.code, failure.message)
    known: tuple[type[ExeuntError], ...] = (
        ActorDead,
        MailboxFull,
        AskTimeout,
        AskCycle,
        UnknownMessage,
        Unencodable,
        NameTaken,
    )
    for kind in known:
        if failure.type == kind.__name__:
            return kind(failure.message)
    return RemoteFailure(failure)
