"""The tunnel in the laboratory: what a download gets, direct and relayed, beside the same line without a tunnel."""

from __future__ import annotations

import socket
import threading

from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.resource import content, download
from exeunt.clients.demo.stage import Stage
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

from .report import Figure, Report

SIZE = 30_000_000
ROUNDS = 3
PLAIN_PORT = 8081


def plain_mbit_s(stage: Stage) -> float:
    """The same bytes by TCP from the internet's side to the client, through its NAT, without a tunnel."""
    import time

    data = content(SIZE)

    def listen() -> socket.socket:
        listener = socket.create_server(("192.0.2.1", PLAIN_PORT))
        listener.settimeout(10)
        return listener

    with stage.lab.internet.run(listen) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        with stage.lab.client.run(lambda: socket.create_connection(("192.0.2.1", PLAIN_PORT), 10)) as connection:
            began, received = time.perf_counter(), 0
            while chunk := connection.recv(65536):
                received += len(chunk)
            took = time.perf_counter() - began
        thread.join()
    assert received == SIZE
    return received * 8 / 1e6 / took


def run() -> Report:
    """Measure the tunnel. Needs root."""
    report = Report("tunnel")
    for path, nat in (("direct", "port_restricted"), ("relay", "symmetric")):
        stage = Stage(make_home(), client_nat=nat, gateway_nat=nat)
        try:
            stage.start_all()
            tunnel: list[float] = []
            plain: list[float] = []
            connect: list[float] = []
            for _ in range(ROUNDS):
                got = download(RESOURCE_ADDRESS, SIZE, open_socket=stage.open_socket)
                assert got.sha256_ok
                tunnel.append(got.mbit_s)
                connect.append(got.connect_ms)
                plain.append(plain_mbit_s(stage))
            assert {peer["path"] for peer in stage.client.status()["peers"]} == {path}
            pings = [stage.client.ask("ping", {"peer": "gateway-1"})["rtt_ms"] for _ in range(50)]
            _, sign_out_ms = stage.client.leave("signed_out")
        finally:
            stage.close()
        report.add(Figure("tcp1_mbit_s", f"exeunt {path}", tunnel, "Mbit/s"))
        report.add(Figure("tcp1_mbit_s", f"no tunnel ({path} lab)", plain, "Mbit/s"))
        report.add(Figure("connect_ms", f"exeunt {path}", connect[:1], "ms"))
        report.add(Figure("ping_ms", f"exeunt {path}", pings, "ms"))
        report.add(Figure("sign_out_ms", f"exeunt {path}", [sign_out_ms], "ms"))
    return report
