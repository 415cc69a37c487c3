"""Why there is no laboratory.

::

    LabError             a namespace is closed already, and other misuse
    └── LabUnavailable   this system, or this user on it, may not make namespaces; ``hint`` says what to do
"""


class LabError(Exception):
    """The laboratory cannot do what it was asked."""


class LabUnavailable(LabError):
    """The system forbids namespaces, or lacks a part that the laboratory is made of."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """What a person can do about it; empty when there is nothing to say."""
