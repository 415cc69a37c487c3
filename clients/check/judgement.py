"""What the measurements mean for a tunnel: one small function each, in the order in which people read them."""

from collections.abc import Callable, Mapping
from typing import Final

from ..check_contract import Check, Finding, Measured, Nat, RelayReach, Verdict
from ..durations import show as show_duration

SEVERITY: Final[tuple[Verdict, ...]] = ("ok", "unknown", "warning", "problem")

# A full packet of the tunnel on its way: WireGuard's header and tag, a relay's channel header, UDP, and IP.
_WIREGUARD_BYTES, _CHANNEL_BYTES, _UDP_BYTES = 32, 4, 8
_IP_BYTES: Final = {4: 20, 6: 40}
LEAST_TUNNEL_MTU_BYTES: Final = 1280

CLOCK_WARNING_MS: Final = 5_000.0
"""Timelines of both sides, put side by side, are out of order from here on."""
CLOCK_PROBLEM_MS: Final = 300_000.0
"""Certificates that are minutes old are refused, and what is limited in time counts as over."""

_NATS: Mapping[str, tuple[Verdict, str]] = {
    "open": ("ok", "No NAT, and no firewall in the way: everybody can reach this host."),
    "firewall": ("ok", "No NAT; a firewall lets only answers in. Paths are direct."),
    "no_nat": ("ok", "No NAT. Paths are direct."),
    "full_cone": ("ok", "A full-cone NAT: paths are direct, whoever the peer is."),
    "address_restricted": ("ok", "An address-restricted NAT: paths are direct, whoever the peer is."),
    "port_restricted": ("ok", "A port-restricted NAT: paths are direct, except to symmetric NATs."),
    "cone": ("ok", "A NAT with one public port for all peers: paths are direct, except to some symmetric NATs."),
    "symmetric": ("warning", "A symmetric NAT: many paths will need a relay, since each peer sees another port."),
    "unknown": ("unknown", "There is a NAT. Its kind cannot be told by one relay with one address."),
}
_NAT_HINTS: Final = {
    "symmetric": "Direct paths need a peer that is open, full-cone or address-restricted; or IPv6.",
    "unknown": "Name a second relay (--relay HOST:PORT), or run one with --other-listen.",
}
_NAME_A_RELAY: Final = "Name one: exeunt check --relay HOST:PORT"

Examination = Callable[[Measured], Finding | None]
"""Looks at what was measured. None: there is nothing to say."""


def judge(measured: Measured, duration_ms: float) -> Check:
    """Examine everything."""
    findings = [finding for examine in EXAMINATIONS if (finding := examine(measured)) is not None]
    verdicts: list[Verdict] = [finding.verdict for finding in findings]
    worst = max(verdicts, key=SEVERITY.index)
    return Check(verdict=worst, findings=findings, measured=measured, duration_ms=duration_ms)


# The network


def udp(measured: Measured) -> Finding:
    """Say whether UDP gets through to any relay, and back."""
    tried = [each for each in measured.relays if each.transport == "udp"]
    best = _nearest(tried)
    if not tried:
        return _finding("udp", "unknown", "No relay is known by which UDP could be tried.", _NAME_A_RELAY)
    if best is not None:
        return _finding("udp", "ok", f"UDP gets through: {best.relay} answers after {_ms(best.rtt_ms)}.")
    stream = _nearest([each for each in measured.relays if each.transport != "udp"])
    if stream is not None:
        sentence = f"UDP is blocked: no relay answers, but {stream.relay} does by {stream.transport.upper()}."
        hint = "Paths will be relayed over TCP or TLS, which is slower. Permit UDP to change that."
        if not stream.announced:
            hint = f"Have the portal announce {stream.relay} with {stream.transport.upper()} too, or permit UDP."
        return _finding("udp", "warning" if stream.announced else "problem", sentence, hint)
    sentence = "No relay answers by UDP: it is blocked here, or none of them runs."
    return _finding("udp", "problem", sentence, "Permit UDP to the relays' ports, or name another relay with --relay.")


def nat(measured: Measured) -> Finding:
    """Name what stands between this host and the IPv4 Internet."""
    found = next((each for each in measured.nats if each.family == 4), None)
    if found is None:
        return _finding("nat", "unknown", "Nothing is known of a NAT: no relay answers by UDP over IPv4.")
    return _nat("nat", found)


def nat_ipv6(measured: Measured) -> Finding | None:
    """The same for IPv6, where there is any."""
    found = next((each for each in measured.nats if each.family == 6), None)
    return None if found is None else _nat("nat_ipv6", found)


def _nat(examination: str, found: Nat) -> Finding:
    verdict, sentence = _NATS.get(found.name, _NATS["unknown"])
    return _finding(examination, verdict, sentence, _NAT_HINTS.get(found.name))


def addresses(measured: Measured) -> Finding:
    """Say by which addresses the world sees this host."""
    if not measured.public_addresses:
        return _finding("address", "unknown", "No relay has told how it sees this host.")
    return _finding("address", "ok", f"Relays see this host as {' and '.join(measured.public_addresses)}.")


def ipv6(measured: Measured) -> Finding:
    """Say whether IPv6 can be used, and whether it was."""
    over_ipv6 = [each for each in measured.relays if each.address is not None and ":" in each.address]
    best = _nearest(over_ipv6)
    if best is not None:
        return _finding("ipv6", "ok", f"IPv6 works: {best.relay} answers after {_ms(best.rtt_ms)}.")
    if measured.ipv6_address is None:
        return _finding("ipv6", "ok", "This network has no IPv6. Nothing needs it where IPv4 works.")
    if not over_ipv6:
        return _finding("ipv6", "unknown", f"This host has {measured.ipv6_address}, but no relay has IPv6 to try.")
    sentence = f"This host has {measured.ipv6_address}, but no relay answers over IPv6."
    return _finding("ipv6", "warning", sentence, "Half-working IPv6 delays connecting; see to it, or switch it off.")


def mtu(measured: Measured) -> Finding:
    """Say whether a full packet of the tunnel fits the path."""
    if not measured.path_mtus:
        return _finding("mtu", "unknown", "The path's MTU cannot be measured: no relay answers by UDP.")
    tightest = min(measured.path_mtus, key=lambda each: each.packet_bytes - _IP_BYTES[each.family])
    overhead_bytes = _WIREGUARD_BYTES + _CHANNEL_BYTES + _UDP_BYTES + _IP_BYTES[tightest.family]
    needed_bytes = measured.tunnel_mtu_bytes + overhead_bytes
    reached = f"Packets of up to {tightest.packet_bytes} bytes reach {tightest.relay} unfragmented"
    if tightest.packet_bytes >= needed_bytes:
        return _finding("mtu", "ok", f"{reached}; the tunnel needs {needed_bytes}.")
    fitting_bytes = tightest.packet_bytes - overhead_bytes
    if fitting_bytes >= LEAST_TUNNEL_MTU_BYTES:
        return _finding("mtu", "ok", f"{reached}; connections find that out, and carry {fitting_bytes} bytes or less.")
    hint = "Find the link with the small MTU. Until then large packets travel in fragments, or not at all."
    needed_bytes = LEAST_TUNNEL_MTU_BYTES + overhead_bytes
    return _finding("mtu", "warning", f"{reached}, but the tunnel needs {needed_bytes}.", hint)


def relays(measured: Measured) -> Finding:
    """Say how many of the announced relays answer, and which is the nearest."""
    announced = [each for each in measured.relays if each.announced]
    if not announced:
        return _finding("relays", "unknown", "No relay is known.", _NAME_A_RELAY)
    answering = [each for each in announced if each.rtt_ms is not None]
    best = _nearest(answering)
    if best is None:
        sentence = "No relay answers: where no direct path exists, no connection comes about."
        return _finding("relays", "problem", sentence, "Is it running, and does a firewall here or there let it be?")
    nearest = f"The nearest relay is {best.relay} by {best.transport.upper()}, {_ms(best.rtt_ms)} away"
    if len(answering) == len(announced):
        return _finding("relays", "ok", f"{nearest}. {_all_of(len(announced))}")
    sentence = f"{nearest}; {len(announced) - len(answering)} of {len(announced)} do not answer."
    return _finding("relays", "warning", sentence, "The table says why; whoever runs them can tell more.")


# The portal, and the time


def portal(measured: Measured) -> Finding:
    """Say whether the portal is there."""
    found = measured.portal
    if found is None:
        hint = "Name one: exeunt check --portal URL, or exeunt sign-in --portal URL"
        return _finding("portal", "unknown", "No portal is configured.", hint)
    if found.reason is None:
        return _finding("portal", "ok", f"The portal answers after {_ms(found.answer_ms)}.")
    sentence = f"The portal at {found.url} cannot be used: {found.reason}."
    return _finding("portal", "problem", sentence, "Without it, nobody can sign in. Is the address right?")


def clock(measured: Measured) -> Finding:
    """Say whether this host's clock is right."""
    found = measured.clock
    if found is None:
        return _finding("clock", "unknown", "There is nothing to compare the clock with: the portal tells no time.")
    error = show_duration(found.error_ms / 1000)
    if abs(found.offset_ms) <= found.error_ms + CLOCK_WARNING_MS:
        off_ms = max(0.0, abs(found.offset_ms) - found.error_ms)
        how = "agrees with" if off_ms == 0 else f"is {show_duration(off_ms / 1000)} off"
        return _finding("clock", "ok", f"The clock {how} {found.source} (to within {error}).")
    way = "ahead of" if found.offset_ms > 0 else "behind"
    sentence = f"The clock is {show_duration(abs(found.offset_ms) / 1000)} {way} {found.source} (give or take {error})."
    verdict: Verdict = "problem" if abs(found.offset_ms) > CLOCK_PROBLEM_MS else "warning"
    return _finding("clock", verdict, sentence, "Set it, for instance by NTP: timedatectl set-ntp true")


# This host


def tun(measured: Measured) -> Finding:
    """Say whether a tunnel device can be opened."""
    return _right(
        measured,
        "tun",
        measured.rights.tun,
        good="The TUN device can be opened.",
        bad="No tunnel device can be opened",
        hint="Load the module (modprobe tun), and run exeunt as root or permit /dev/net/tun.",
    )


def net_admin(measured: Measured) -> Finding:
    """Say whether addresses and routes may be set."""
    return _right(
        measured,
        "rights",
        measured.rights.net_admin,
        good="This user may set addresses and routes.",
        bad="Addresses and routes cannot be set",
        hint="Run it as root (sudo exeunt client run), or give it CAP_NET_ADMIN.",
    )


def nftables(measured: Measured) -> Finding:
    """Say whether a gateway could filter and masquerade here."""
    reason = measured.rights.nftables
    if reason is None:
        return _finding("nftables", "ok", "The kernel has nf_tables, which a gateway needs.")
    if measured.rights.net_admin is not None:
        return _finding("nftables", "unknown", "Whether a gateway could filter here, only root can see.")
    hint = "Only gateways need it. Load the module (modprobe nf_tables)."
    return _finding("nftables", "warning", f"nf_tables cannot be used: {reason.rstrip('.')}.", hint)


def data_path(measured: Measured) -> Finding | None:
    """Say by what packets are sealed and opened. Either is well; one is faster."""
    found = measured.data_path
    if found is None:
        return None
    if found.kernel == "native":
        return _finding("data_path", "ok", f"Packets are sealed by native code ({found.why}).")
    hint = "Native code is faster: install with a C compiler and Python's headers there, without EXEUNT_NATIVE=0."
    return _finding("data_path", "ok", f"Packets are sealed in pure Python: {found.why}.", hint)


def _right(measured: Measured, examination: str, reason: str | None, *, good: str, bad: str, hint: str) -> Finding:
    if reason is None:
        return _finding(examination, "ok", good)
    if measured.instance is not None:
        return _finding(examination, "ok", f"{bad} by this user, but {measured.instance} runs and has its own rights.")
    return _finding(examination, "problem", f"{bad}: {reason}.", hint)


EXAMINATIONS: Final[tuple[Examination, ...]] = (
    *(udp, nat, nat_ipv6, addresses, ipv6, mtu, relays),
    *(portal, clock),
    *(tun, net_admin, nftables, data_path),
)


def _finding(examination: str, verdict: Verdict, sentence: str, hint: str | None = None) -> Finding:
    return Finding(examination=examination, verdict=verdict, sentence=sentence, hint=hint)


def _nearest(reaches: list[RelayReach]) -> RelayReach | None:
    answering = [each for each in reaches if each.rtt_ms is not None]
    return min(answering, key=lambda each: each.rtt_ms or 0.0, default=None)


def _all_of(number: int) -> str:
    return "It is the only one." if number == 1 else f"All {number} answer."


def _ms(value: float | None) -> str:
    return show_duration((value or 0.0) / 1000)
