"""What administrators call things, looked up. Names and ids both work; a mistake is told in words.

Raises, everywhere here:
    NotFound: there is no such thing.
    InvalidValue: it cannot be, or could be several.
"""

import msgspec

from exeunt.actors.portal.messages import PeerKind
from exeunt.actors.portal.texts import Name

from .addresses import host_and_port
from .directory import Directory, PeerRecord, ResourceRecord, SiteRecord
from .errors import InvalidValue, NotFound


def checked_name(text: str) -> str:
    """A name that something may have."""
    try:
        name = msgspec.convert(text, Name)
    except msgspec.ValidationError:
        raise InvalidValue("A name has 1 to 128 printable characters.") from None
    if ":" in name or name != name.strip():
        raise InvalidValue("A name has no colon, and no space at its ends.")
    return name


def site_named(directory: Directory, name: str | None) -> SiteRecord:
    """The site of this name or id; without one, the only one there is."""
    found = [s for s in directory.sites.values() if name is None or name in (s.id, s.name)]
    if not found:
        what = "There is no site yet." if name is None else f"There is no site {name!r}."
        raise NotFound(what, "Make one with: exeunt admin site add NAME")
    if len(found) > 1:
        raise InvalidValue("There are several sites.", "Name one with --site; see: exeunt admin site list")
    return found[0]


def peer_named(directory: Directory, name: str, kind: PeerKind | None = None) -> PeerRecord:
    """The client or gateway of this name or id."""
    found = [p for p in directory.peers.values() if name in (p.id, p.name) and kind in (None, p.kind)]
    what = kind or "client or gateway"
    if not found:
        raise NotFound(f"There is no {what} {name!r}.", "See: exeunt admin client list")
    if len(found) > 1:
        ids = " and ".join(p.id for p in found)
        raise InvalidValue(f"A client and a gateway are both named {name!r}.", f"Use an id: {ids}.")
    return found[0]


def resource_named(directory: Directory, name: str) -> ResourceRecord:
    """The resource of this name or id."""
    for record in directory.resources.values():
        if name in (record.id, record.name):
            return record
    raise NotFound(f"There is no resource {name!r}.", "See: exeunt admin resource list")


def checked_host_and_port(address: str) -> tuple[str, int]:
    """HOST:PORT, taken apart."""
    try:
        return host_and_port(address)
    except ValueError as error:
        raise InvalidValue(f"{error}.") from None
