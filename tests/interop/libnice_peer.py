# mypy: ignore-errors
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false
"""libnice as a peer: one agent, told what to do by JSON lines on stdin, telling what happens on stdout.

Runs with the system's Python, which has libnice's introspection data (python3-gi, gir1.2-nice-0.1). What those cannot
do is done by ctypes: `nice_agent_attach_recv` takes a C function, and without it the agent handles no packet at all.

    in    {"do": "start", "role", "turn": null | {host, port, username, password}}   first
          {"do": "remote", "username", "password"}   {"do": "candidate", "line"}
          {"do": "send", "hex"}   {"do": "close"}
    out   {"event": "credentials", "username", "password"}   {"event": "candidate", "line"}   ("": no more)
          {"event": "state", "state"}   {"event": "data", "hex"}   {"event": "pair", "local", "remote"}
"""

import ctypes
import json
import os
import sys
import threading

import gi

gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice  # noqa: E402

COMPONENT = 1
RECEIVE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
)
library = ctypes.CDLL("libnice.so.10")
library.nice_agent_attach_recv.argtypes = [
    *(ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, RECEIVE, ctypes.c_void_p)
]
library.nice_agent_send.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_char_p]


told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # GLib prints what it has to say on stdout


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), file=told, flush=True)


class Peer:
    def __init__(self, loop, role, turn):
        self.loop = loop
        options = (
            Nice.AgentOption.REGULAR_NOMINATION | Nice.AgentOption.CONSENT_FRESHNESS | Nice.AgentOption.ICE_TRICKLE
        )
        self.agent = agent = Nice.Agent.new_full(loop.get_context(), Nice.Compatibility.RFC5245, options)
        agent.props.controlling_mode = role == "controlling"
        agent.props.ice_tcp = False
        agent.props.upnp = False
        agent.props.force_relay = turn is not None
        loopback = Nice.Address.new()
        loopback.set_from_string("127.0.0.1")
        agent.add_local_address(loopback)
        self.stream = agent.add_stream(1)
        if turn is not None:
            where = (turn["host"], turn["port"], turn["username"], turn["password"])
            agent.set_relay_info(self.stream, COMPONENT, *where, Nice.RelayType.UDP)
        agent.connect("new-candidate-full", self.on_candidate)
        agent.connect("candidate-gathering-done", lambda *_: tell("candidate", line=""))
        agent.connect("component-state-changed", self.on_state)
        agent.connect("new-selected-pair-full", self.on_pair)
        self.receive = RECEIVE(self.on_data)  # kept: C holds only its address
        context = ctypes.c_void_p(hash(loop.get_context()))
        library.nice_agent_attach_recv(hash(agent), self.stream, COMPONENT, context, self.receive, None)
        _, username, password = agent.get_local_credentials(self.stream)
        tell("credentials", username=username, password=password)
        agent.gather_candidates(self.stream)

    def do(self, order):
        agent, what = self.agent, order["do"]
        if what == "remote":
            agent.set_remote_credentials(self.stream, order["username"], order["password"])
        elif what == "candidate" and order["line"]:
            line = f"a=candidate:{order['line'].removeprefix('candidate:')}"
            candidate = agent.parse_remote_candidate_sdp(self.stream, line)
            agent.set_remote_candidates(self.stream, COMPONENT, [candidate])
        elif what == "candidate":
            agent.peer_candidate_gathering_done(self.stream)
        elif what == "send":
            data = bytes.fromhex(order["hex"])
            sent = library.nice_agent_send(hash(agent), self.stream, COMPONENT, len(data), data)
            if sent != len(data):
                tell("error", message=f"nice_agent_send: {sent}")
        elif what == "close":
            self.loop.quit()

    def on_candidate(self, agent, candidate):
        tell("candidate", line=agent.generate_local_candidate_sdp(candidate).removeprefix("a="))

    def on_state(self, _agent, _stream, _component, state):
        tell("state", state=Nice.component_state_to_string(state).lower())

    def on_pair(self, _agent, _stream, _component, local, remote):
        tell("pair", local=local.type.value_nick, remote=remote.type.value_nick)

    def on_data(self, _agent, _stream, _component, length, data, _user):
        tell("data", hex=ctypes.string_at(data, length).hex())


def main():
    loop = GLib.MainLoop()
    start = json.loads(sys.stdin.readline())
    peer = Peer(loop, start["role"], start["turn"])

    def read():
        for line in sys.stdin:
            GLib.idle_add(peer.do, json.loads(line))
        GLib.idle_add(loop.quit)  # whoever started us is gone

    threading.Thread(target=read, daemon=True).start()
    loop.run()


main()
