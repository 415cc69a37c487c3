"""What a relay has seen, as numbers: whatever is dropped is at least counted."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Totals since the relay started."""

    rx_client_datagrams: int = 0
    rx_peer_datagrams: int = 0
    relayed_to_peers: int = 0
    relayed_to_clients: int = 0
    relayed_to_peers_bytes: int = 0
    relayed_to_clients_bytes: int = 0
    bindings: int = 0
    changed_origins: int = 0
    """Binding requests that were answered from another address, as they asked."""
    allocations: int = 0
    malformed: int = 0
    """Datagrams that are neither STUN nor ChannelData of this protocol."""
    ignored: int = 0
    """Well-formed messages that nobody asked for: responses, unknown methods."""
    unauthorized: int = 0
    stale_nonces: int = 0
    refused: int = 0
    """Requests answered with any other error."""
    repeated: int = 0
    """Requests that were answered from memory."""
    not_permitted: int = 0
    """Datagrams without a permission, from peers or to peers."""
    no_allocation: int = 0
    """Data from clients that have no allocation, or on a channel that isn't bound."""
    oversized: int = 0
