"""What an administrator can get wrong.

PortalError
├── AlreadyExists   a name is taken, or the portal is set up already
├── NotFound        no such site, client, gateway, resource, token or relay
└── InvalidValue    a name, CIDR or address that cannot be
"""


class PortalError(Exception):
    """The text is a sentence for the administrator; `hint` says what to do next."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class AlreadyExists(PortalError):  # named for what happened
    """The name is taken."""


class NotFound(PortalError):
    """There is no such thing."""


class InvalidValue(PortalError):
    """The value cannot be."""
