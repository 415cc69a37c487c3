"""Traffic, as programs that run inside a namespace: TCP streams, paced UDP, ping. Standard library alone.

Nothing here may be the bottleneck. TCP is sent from one large buffer, and received with MSG_TRUNC, which throws the
bytes away inside the kernel (tcp(7)). UDP is sent and received in batches (sendmmsg(2), recvmmsg(2), through ctypes):
one datagram a packet, as programs send them. Ping takes the kernel's time of arrival (SO_TIMESTAMPNS), so that it
does not measure how late its own process was woken.

    flow tcp listen|connect HOST PORT source|sink STREAMS SEGMENT_BYTES WARM_S SECONDS
    flow udp-sink HOST PORT           each line on stdin: print how many came since the line before
    flow udp-source HOST PORT BYTES   each line "PER_SECOND SECONDS": send, print how many and how long it took
    flow udp-echo HOST PORT           send back whatever comes, a train of datagrams as a train
    flow udp-end FD CHANNEL BYTES TRAIN
                                      one end of a flow, on an inherited socket, in ChannelData unless CHANNEL is 0:
                                      lines as for the sink and the source; whoever receives answers now and then
    flow ping HOST COUNT INTERVAL_S

Each prints "ready" when it can be counted on, and JSON lines with what it measured.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

_CHUNK = 1 << 20
_START_S = 20.0
_BATCH = 64
_BURST = 16
"""So many datagrams are sent at once, where the rate does not ask for less."""
_BUFFER_BYTES = 4 << 20
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_SO_TIMESTAMPNS = 35
_ECHO = 8
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
ANSWERED = 48
"""So many datagrams are answered by one, which is what TCP inside our tunnel does: a frame of 64 kB is acknowledged
whole."""
ANSWER_BYTES = 96
"""An acknowledgement, sealed."""


def say(document: object) -> None:
    print(json.dumps(document), flush=True)


# TCP


def tcp(role: str, host: str, port: str, duty: str, *numbers: str) -> None:
    """Move bytes over so many connections; the side that receives measures."""
    streams, segment, *times_s = numbers
    open_all = _listen if role == "listen" else _connect
    connections = open_all((host, int(port)), int(streams), int(segment))
    if duty == "source":
        for thread in _threads(_pour, connections):
            thread.join()
    else:
        counter = _Counter(*(float(each) for each in times_s))
        _threads(counter.drain, connections)
        say(counter.measure())


def _threads(work: Callable[[socket.socket], None], connections: list[socket.socket]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(one,), daemon=True) for one in connections]
    for thread in threads:
        thread.start()
    return threads


def _listen(address: tuple[str, int], streams: int, segment: int) -> list[socket.socket]:
    with _socket(segment) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(streams)
        say("ready")
        return [server.accept()[0] for _ in range(streams)]


def _connect(address: tuple[str, int], streams: int, segment: int) -> list[socket.socket]:
    connections = [_socket(segment) for _ in range(streams)]
    for connection in connections:
        connection.connect(address)
    say("ready")
    return connections


def _socket(segment: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(_START_S)
    if segment:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
    return made


def _pour(connection: socket.socket) -> None:
    data = memoryview(bytes(_CHUNK))
    connection.settimeout(None)
    try:
        while True:
            connection.send(data)
    except OSError:
        return  # whoever measures has enough


class _Counter:
    """Counts what all connections bring."""

    def __init__(self, warm_s: float, seconds: float) -> None:
        self._warm_s, self._seconds = warm_s, seconds
        self._bytes: dict[int, int] = {}
        self._begun = threading.Event()

    def drain(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        buffer, me = memoryview(bytearray(_CHUNK)), connection.fileno()
        total = 0
        while got := connection.recv_into(buffer, _CHUNK, socket.MSG_TRUNC):
            total += got
            self._bytes[me] = total
            self._begun.set()

    def measure(self) -> dict[str, object]:
        """Wait for the first byte and the end of the warm-up, then count for so long."""
        if not self._begun.wait(_START_S):
            raise TimeoutError("nothing came")
        time.sleep(self._warm_s)
        before, began = dict(self._bytes), time.perf_counter()
        time.sleep(self._seconds)
        after, took = dict(self._bytes), time.perf_counter() - began
        each = [after[one] - before.get(one, 0) for one in after]
        return {"bytes": sum(each), "seconds": took, "total": sum(after.values()), "each": each}


# UDP


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_Vector)),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint))


class Batch:
    """Datagrams for one system call; all of them share one buffer, whose content nobody reads."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = connection.fileno()
        self._data = ctypes.create_string_buffer(size)
        self._vector = _Vector(ctypes.addressof(self._data), size)
        self._headers = (_Header * _BATCH)()
        for header in self._headers:
            header.message.vector, header.message.vectors = ctypes.pointer(self._vector), 1

    def send(self, count: int) -> int:
        """Send so many at most; return how many the kernel took."""
        return max(0, int(self._libc.sendmmsg(self._fd, self._headers, min(count, _BATCH), 0)))

    def receive(self) -> int:
        """Receive what is there; return how many."""
        return max(0, int(self._libc.recvmmsg(self._fd, self._headers, _BATCH, socket.MSG_DONTWAIT, None)))

    def bytes(self, count: int) -> int:
        """How many bytes the first so many that were received had."""
        return sum(header.length for header in self._headers[:count])


def udp_sink(host: str, port: str) -> None:
    """Count datagrams until standard input ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        listening.bind((host, int(port)))
        batch, count = Batch(listening, 2048), 0
        say("ready")
        while True:
            readable = select.select([listening, sys.stdin], [], [])[0]
            if listening in readable:
                while got := batch.receive():
                    count += got
            if sys.stdin in readable:
                if not os.read(0, 4096):
                    return
                say({"received": count})
                count = 0


def udp_source(host: str, port: str, size: str) -> None:
    """Send at the rates that standard input asks for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
        sending.connect((host, int(port)))
        batch = Batch(sending, int(size))
        say("ready")
        for line in sys.stdin:
            per_second, seconds = (float(word) for word in line.split())
            say(_paced(batch, per_second, seconds))


def _paced(batch: Batch, per_second: float, seconds: float) -> dict[str, float]:
    burst = max(1, min(_BURST, int(per_second / 2000)))
    began = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - began) < seconds:
        due = int(now * per_second) - sent
        if due >= burst:
            sent += batch.send(min(due, burst))
        else:
            time.sleep((burst - due) / per_second)
    return {"sent": sent, "seconds": time.perf_counter() - began}


def udp_echo(host: str, port: str) -> None:
    """Send back whatever comes: what the kernel gives as a train, as a train with the same cuts (udp(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echoing:
        for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
            echoing.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        echoing.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        echoing.bind((host, int(port)))
        # Else it waits behind whoever is measured, as no machine of its own would.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        say("ready")
        buffer = memoryview(bytearray(65_535))
        while True:
            echo(echoing, buffer)


def echo(echoing: socket.socket, buffer: memoryview) -> None:
    """Send back what one call brings."""
    size, ancillary, _, source = echoing.recvmsg_into([buffer], socket.CMSG_SPACE(4))
    segments = [struct.unpack("i", data)[0] for level, kind, data in ancillary if (level, kind) == (_SOL_UDP, _UDP_GRO)]
    cuts = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", segment)) for segment in segments if segment < size]
    echoing.sendmsg([buffer[:size]], cuts, 0, source)


def udp_end(descriptor: str, channel: str, size: str, train: str) -> None:
    """Be one end of a flow until standard input ends."""
    with socket.socket(fileno=int(descriptor)) as connection:
        end = End(connection, int(channel), int(size), int(train))
        say("ready")
        while True:
            readable = select.select([connection, sys.stdin], [], [])[0]
            if connection in readable:
                end.receive(answers=True)
            if sys.stdin in readable:
                line = os.read(0, 4096).decode()
                if not line:
                    return
                say(end.send(*(float(word) for word in line.split())) if line.strip() else {"received": end.count()})


class End:
    """Sends in trains of equal datagrams and takes what comes in trains, as our tunnel does (udp(7))."""

    def __init__(self, connection: socket.socket, channel: int, size: int, train: int) -> None:
        for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        connection.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        self._connection = connection
        self._datagram = _framed(channel, bytes(size))
        self._answer = _framed(channel, bytes(ANSWER_BYTES))
        self._train = self._datagram * train
        self._datagrams = train
        self._segment = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", len(self._datagram)))] if train > 1 else []
        self._batch = Batch(connection, 65_535)
        self._bytes = self._answered = 0

    def receive(self, *, answers: bool) -> None:
        while got := self._batch.receive():
            self._bytes += self._batch.bytes(got)
        each = ANSWERED * len(self._datagram)
        while answers and self._bytes - self._answered >= each:
            self._answered += each
            self._connection.send(self._answer)

    def count(self) -> int:
        """How many datagrams came since the last time."""
        self.receive(answers=False)
        found, self._bytes, self._answered = self._bytes // len(self._datagram), 0, 0
        return found

    def send(self, per_second: float, seconds: float) -> dict[str, float]:
        """Send at this rate, trains evenly spaced, and throw away the answers."""
        pause = self._datagrams / per_second
        began, trains = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < seconds:
            if now >= trains * pause:
                self._connection.sendmsg([self._train], self._segment)
                trains += 1
            elif select.select([self._connection], [], [], trains * pause - now)[0]:
                self._batch.receive()
        self.count()
        return {"sent": trains * self._datagrams, "seconds": now}


def _framed(channel: int, payload: bytes) -> bytes:
    """RFC 8656 section 12.4, without padding."""
    return struct.pack("!HH", channel, len(payload)) + payload if channel else payload


# Ping


def ping(host: str, count: str, interval_s: str) -> None:
    """Send echo requests at a fixed pace, whether or not they are answered; print the round trips."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as echo:
        echo.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        echo.connect((host, 0))
        _Pings(echo).run(int(count), float(interval_s))


class _Pings:
    def __init__(self, echo: socket.socket) -> None:
        self._echo = echo
        self._identifier = os.getpid() & 0xFFFF
        self._sent_ns: dict[int, int] = {}
        self._trips_ms: dict[int, float] = {}

    def run(self, count: int, interval_s: float) -> None:
        say("ready")
        began = time.perf_counter()
        for number in range(count):
            self._sent_ns[number] = time.time_ns()
            self._echo.send(self._request(number))
            self._listen(began + (number + 1) * interval_s)
        self._listen(time.perf_counter() + 0.5, at_most=count)
        say({"sent": count, "ms": [self._trips_ms[number] for number in sorted(self._trips_ms)]})

    def _request(self, number: int) -> bytes:
        total = (_ECHO << 8) + self._identifier + number
        total = (total >> 16) + (total & 0xFFFF)
        return struct.pack("!BBHHH", _ECHO, 0, ~total & 0xFFFF, self._identifier, number)

    def _listen(self, until: float, at_most: int | None = None) -> None:
        while len(self._trips_ms) != at_most and (left := until - time.perf_counter()) > 0:
            if not select.select([self._echo], [], [], left)[0]:
                return
            packet, ancillary, _, _ = self._echo.recvmsg(2048, 64)
            kind, _, _, whose, number = struct.unpack_from("!BBHHH", packet, (packet[0] & 15) * 4)
            if kind == 0 and whose == self._identifier and number in self._sent_ns:
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
                arrived_ns = seconds * 1_000_000_000 + nanoseconds
                self._trips_ms.setdefault(number, (arrived_ns - self._sent_ns[number]) / 1e6)


_PROGRAMS: dict[str, Callable[..., None]] = {
    "tcp": tcp,
    "udp-sink": udp_sink,
    "udp-source": udp_source,
    "udp-echo": udp_echo,
    "udp-end": udp_end,
    "ping": ping,
}

if __name__ == "__main__":
    _PROGRAMS[sys.argv[1]](*sys.argv[2:])
