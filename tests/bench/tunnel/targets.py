"""What the tunnel is to reach, against the wireguard-go with offloads that was measured in the same rounds."""

from __future__ import annotations

from collections.abc import Iterator

from ..targets import Target

RIVAL = "wireguard-go"
NATIVE, PURE = "exeunt-native", "exeunt-pure"
_RATES = ("tcp1_mbit_s", "tcp4_mbit_s", "tcp1_alone_mbit_s", "tcp4_alone_mbit_s")


def _all() -> Iterator[Target]:
    for name in _RATES:
        yield Target(name, ">=", 1.5, over=f"{RIVAL} {name}", subject=NATIVE)
        yield Target(name, ">=", 0.8, over=f"{RIVAL} {name}", subject=PURE)
    for side in ("client", "gateway"):
        name = f"cpu_s_per_gb_{side}"
        yield Target(name, "<=", 0.7, over=f"{RIVAL} {name}", subject=NATIVE)
    yield Target("udp_pps", ">=", 1.0, over=f"{RIVAL} udp_pps", subject=NATIVE)
    for subject in (NATIVE, PURE):
        yield Target("ping_p50_ms", "<=", 0.1, over=f"{RIVAL} ping_p50_ms", subject=subject, above=True)
        yield Target("ping_loaded_p99_ms", "<=", 5.0, over=f"{subject} ping_p50_ms", subject=subject, above=True)
        yield Target("relay_tcp1_mbit_s", ">=", 0.8, over="coturn relay_ceiling_mbit_s", subject=subject)
        yield Target("connect_ms", "<=", 300.0, subject=subject)
    yield Target("handshake_cpu_ms_client", "<=", 0.6)
    yield Target("handshake_cpu_ms_gateway", "<=", 0.6)
    yield Target("idle_1000_kb", "<=", 64.0, subject=NATIVE)
    yield Target("idle_1000_core_percent", "<=", 2.0, subject=NATIVE)
    yield Target("active_100_total_ratio", ">=", 0.8, subject=NATIVE)
    yield Target("active_100_spread_percent", "<=", 20.0, subject=NATIVE)


TARGETS = tuple(_all())
