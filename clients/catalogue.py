"""Every command in one table: what it is called, where it lives, what the overview says of it.

The table is all that ``exeunt --help`` needs, so the overview imports nothing else and is there at once;
the command line proper (`exeunt.clients.app`) is built from the same table, its commands loaded when
they are run.
"""

from typing import Final, NamedTuple

SUMMARY: Final = "a private network that can say goodbye"


class Command(NamedTuple):
    """One command, or one group of them that brings its own commands."""

    words: tuple[str, ...]
    """What a person types after ``exeunt``."""
    target: str
    """``module:function``, or ``module:app`` for a group; the module is one of `exeunt.clients.commands`."""
    arguments: str
    """The arguments worth showing in the overview."""
    help: str
    section: str

    @property
    def import_path(self) -> str:
        """The target with its package."""
        return f"exeunt.clients.commands.{self.target}"


_PROGRAMS = "Programs (foreground; fit for systemd)"
_CLIENT = "Client"
_PORTAL = "Portal administration"
_SUPERVISE = "Supervise"
_EVIDENCE = "Evidence"
_INTERFACE = "This installation"

COMMANDS: Final = (
    Command(("demo",), "demo:run", "", "Connect, transfer, leave, and explain each ending.", _PROGRAMS),
    Command(("client", "run"), "client_run:run", "", "The headless client.", _PROGRAMS),
    Command(("gateway", "run"), "gateway_run:run", "", "A gateway.", _PROGRAMS),
    Command(("portal", "run"), "portal_run:run", "", "Identities, resources, signalling.", _PROGRAMS),
    Command(("relay", "run"), "relay_run:run", "", "A STUN and TURN relay.", _PROGRAMS),
    Command(("sign-in",), "sign_in:run", "", "Store a token and connect.", _CLIENT),
    Command(("sign-out",), "sign_out:run", "", "Disconnect, forget the token.", _CLIENT),
    Command(("status",), "status:run", "[PEER]", "Session, resources, peers and problems.", _CLIENT),
    Command(("ping",), "ping:run", "PEER", "Round trips through the tunnel, and by which path.", _CLIENT),
    Command(("check",), "check:run", "", "Examine this network: UDP, NAT, relays, MTU, rights.", _CLIENT),
    Command(("admin",), "admin:app", "COMMAND", "Sites, gateways, clients, resources, tokens.", _PORTAL),
    Command(("ps",), "ps:run", "", "Actors: state, worker, mailbox, restarts; dead letters.", _SUPERVISE),
    Command(("tree",), "tree:run", "", "The supervision tree.", _SUPERVISE),
    Command(("top",), "top:run", "[--write]", "Live view of actors, peers, events.", _SUPERVISE),
    Command(("show",), "show:run", "ACTOR", "One actor: spec, state, last messages, restarts.", _SUPERVISE),
    Command(("stack",), "stack:run", "[ACTOR|WORKER]", "Python stacks, without stopping anything.", _SUPERVISE),
    Command(("restart",), "restart:run", "NAME", "Have an actor, a worker or a supervisor restarted.", _SUPERVISE),
    Command(("stop",), "stop:run", "[--now]", "Let everyone finish, then leave.", _SUPERVISE),
    Command(("endings",), "endings:run", "[-f]", "Ended connections: cause, who, how soon known.", _EVIDENCE),
    Command(("why",), "why:run", "PEER", "Explain the last ending with a peer.", _EVIDENCE),
    Command(("metrics",), "metrics:app", "[write PATH]", "Endings, peers, actors, as Prometheus text.", _EVIDENCE),
    Command(("logs",), "logs:run", "[-f] [ACTOR]", "Logs, by level, actor, event, time.", _EVIDENCE),
    Command(("events",), "events:run", "[-f]", "What happened to actors, workers and connections.", _EVIDENCE),
    Command(("trace", "list"), "trace:show_list", "", "Traces, slowest or newest first.", _EVIDENCE),
    Command(("trace", "show"), "trace:show", "ID", "What one message caused.", _EVIDENCE),
    Command(
        ("trace", "last"), "trace:show_last", "[ACTOR]", "What each actor handled last, also a dead one.", _EVIDENCE
    ),
    Command(
        ("trace", "export"), "trace_export:export", "ID", "For Perfetto, Firefox Profiler, OpenTelemetry.", _EVIDENCE
    ),
    Command(("trace", "record"), "trace_export:record", "", "The same of what happens from now on.", _EVIDENCE),
    Command(("paths",), "paths:run", "", "Every file and socket in use.", _INTERFACE),
    Command(("version",), "version:run", "", "What is installed.", _INTERFACE),
)

GROUPS: Final = {
    "client": "The headless client.",
    "gateway": "The gateway.",
    "portal": "The portal.",
    "relay": "The relay.",
    "trace": "What happened because of what.",
}
"""What a group of commands says of itself."""

EVERYWHERE: Final = (
    "--json  --quiet  --verbose  --color auto|always|never  --config FILE",
    "--instance NAME  --timeout 10s  --help",
)


def overview(*, bold: bool = False) -> str:
    """The text of ``exeunt --help``, at most 80 columns wide; `bold` sets the headings off on a terminal."""

    def heading(text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if bold else text

    lines = [f"{heading('exeunt')} - {SUMMARY}", "", "Usage: exeunt COMMAND [OPTIONS]"]
    for section in dict.fromkeys(command.section for command in COMMANDS):
        lines += ["", heading(section)]
        for command in COMMANDS:
            if command.section == section:
                usage = " ".join((*command.words, command.arguments)).strip()
                lines.append(f"  {usage:<20}  {command.help}")
    lines += ["", heading("Everywhere"), *(f"  {line}" for line in EVERYWHERE)]
    lines += ["", "exeunt COMMAND --help says more. Start with: exeunt demo"]
    return "\n".join(lines)
