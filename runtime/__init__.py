"""Actors in supervised worker processes: a general runtime that knows nothing of tunnels."""

from .actor import Actor, BlockingActor, Later, receive
from .address import Address
from .backoff import Backoff
from .child_spec import ChildSpec, Intensity, Restart, Strategy, SupervisorSpec, WorkerSpec
from .directories import Directories
from .envelope import Message
from .errors import ActorDead, AskTimeout, ExeuntError, MailboxFull, Refused, RemoteFailure
from .messages import Terminated
from .outcome import Outcome
from .ref import Ref
from .supervisor import Supervisor

__all__ = [
    "Actor",
    "ActorDead",
    "Address",
    "AskTimeout",
    "Backoff",
    "BlockingActor",
    "ChildSpec",
    "Directories",
    "ExeuntError",
    "Intensity",
    "Later",
    "MailboxFull",
    "Message",
    "Outcome",
    "Ref",
    "Refused",
    "RemoteFailure",
    "Restart",
    "Strategy",
    "Supervisor",
    "SupervisorSpec",
    "Terminated",
    "WorkerSpec",
    "receive",
]
