"""`exeunt check`: examines this network and host, for what a tunnel needs."""

from typing import Annotated

from cyclopts import Parameter

from .. import config
from ..check.situation import Place, Situation, parse_places, with_guesses
from ..instances import connect, running
from ..output import DEFAULTS, ExitCode, Failure, Options, emit, fail
from ..paths import Paths, current

ASK_PROGRAM_S = 1.0
"""A program on this host answers in milliseconds, or is not to be waited for."""


def run(
    *,
    relay: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    portal: str | None = None,
    options: Options = DEFAULTS,
) -> int:
    """Examine this network and host: UDP, NAT kind, relays, IPv6, MTU, portal, clock, rights. Takes < 5 s.

    Needs no session. Relays are those given, else those of the running client or gateway, else those of the
    configuration ([check] relays). Exits with 1 if it finds a problem.

    Args:
        relay: A relay, HOST:PORT, tcp:HOST:PORT or tls:HOST:PORT. Can be given several times.
        portal: The portal's address. By default the configured one.
        options: The options that every command takes.
    """
    import asyncio
    import time

    from ..check.judgement import judge
    from ..check.measurement import measure
    from ..views import check as view

    began_at = time.monotonic()
    situation = _situation(relay, portal, options)
    measured = asyncio.run(measure(situation))
    check = judge(measured, (time.monotonic() - began_at) * 1000)
    emit("exeunt.check/1", check, options=options, human=lambda: view.render(check))
    return ExitCode.FAILED if check.verdict == "problem" else ExitCode.OK


def _situation(relays: tuple[str, ...], portal: str | None, options: Options) -> Situation:
    paths = current()
    client = config.load(config.ClientConfig, "client", paths=paths, options=options, flags={"portal_url": portal})
    configured = config.load(config.CheckConfig, "check", paths=paths, options=options)
    try:
        given = parse_places(relays)
    except ValueError as error:
        fail("usage", f"{error}.")
    try:
        from_file = parse_places([configured.relays] if isinstance(configured.relays, str) else configured.relays)
    except ValueError as error:
        fail("config_invalid", f"[check] relays: {error}.")
    instance, told = _running(paths, options)
    return Situation(
        relays=with_guesses(given or told or from_file),
        portal_url=client.portal_url,
        tunnel_mtu_bytes=client.mtu,
        instance=instance,
    )


def _running(paths: Paths, options: Options) -> tuple[str | None, tuple[Place, ...]]:
    """Find the program that runs a session, and ask it for its relays; none that answers is no failure."""
    for found in running(paths):
        if options.instance not in (None, found.name):
            continue
        try:
            with connect(found, options) as program:
                answer = program.request(dict[str, object], "status", timeout_s=ASK_PROGRAM_S)
        except Failure:
            continue  # it has no session, or is busy: a portal, a relay
        return found.name, _relays_of(answer)
    return None, ()


def _relays_of(status: dict[str, object]) -> tuple[Place, ...]:
    import msgspec

    try:
        return msgspec.convert(status.get("relays", ()), tuple[Place, ...])
    except msgspec.ValidationError:
        return ()  # of another version
