"""Which TCP ports of some addresses answer, all 65535 of each, in seconds: a program for root.

Arguments: addresses, IPv4 or IPv6 (`fe80::1%eth0`). A SYN goes to every port;
who answers with SYN and ACK is open. Prints a JSON object: address → open ports.
"""

import ctypes
import errno
import json
import multiprocessing
import os
import socket
import struct
import sys
import time

PORTS = range(1, 65536)
BURST = 512
# Time for the other side after each burst, and after the last one.
PAUSE_SECONDS, LAST_SECONDS = 0.003, 1
SYN, SYN_ACK = 0x02, 0x12
RECEIVE_BYTES = 16 * 2**20
NO_REASON = {errno.EPERM, errno.ENOBUFS, errno.ECONNREFUSED, errno.EHOSTUNREACH}
# Linux' numbers that Python does not name.
SO_ATTACH_FILTER, SO_RCVBUFFORCE, IPV6_CHECKSUM = 26, 33, 7
# Classic BPF, (code, if true, if false, value): load TCP's flags …
FLAGS = {
    # … behind an IPv4 header, whose length comes first; an IPv6 socket gives none.
    socket.AF_INET: [(0xB1, 0, 0, 0), (0x50, 0, 0, 13)],
    socket.AF_INET6: [(0x30, 0, 0, 13)],
}
# … and keep the packet where SYN and ACK are set.
KEEP = [(0x54, 0, 0, SYN_ACK), (0x15, 0, 1, SYN_ACK), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]


class Sweep:
    """The ports of one address."""

    def __init__(self, address: str) -> None:
        """Open a socket for TCP as it is on the wire, to and from this address."""
        family, _, _, _, target = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        self._four = family == socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
        lines = b"".join(struct.pack("HBBI", *line) for line in [*FLAGS[family], *KEEP])
        program = ctypes.create_string_buffer(lines, len(lines))
        attached = struct.pack("HL", len(lines) // 8, ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, attached)
        if not self._four:
            self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, 16)
        self._socket.connect(target)
        self._socket.settimeout(0)
        mine, theirs = str(self._socket.getsockname()[0]), str(target[0])
        self._port = 32768 + os.getpid() % 16384
        self._sequence = int.from_bytes(os.urandom(4), "big")
        self._sum = 0
        if self._four:
            ends = socket.inet_aton(mine) + socket.inet_aton(theirs)
            head = ends + struct.pack("!HH", socket.IPPROTO_TCP, 20) + self._packet(0, 0)
            self._sum = sum(struct.unpack(f"!{len(head) // 2}H", head))
        self.open: set[int] = set()

    def _packet(self, port: int, checksum: int) -> bytes:
        head = (self._port, port, self._sequence, 0, 5 << 4, SYN, 64240, checksum, 0)
        return struct.pack("!HHIIBBHHH", *head)

    def _checksum(self, port: int) -> int:
        if not self._four:
            return 0
        total = self._sum + port
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return ~total & 0xFFFF

    def run(self) -> list[int]:
        """Ask every port, and give those that are open."""
        for port in PORTS:
            self._send(self._packet(port, self._checksum(port)))
            if port % BURST == 0:
                time.sleep(PAUSE_SECONDS)
                self._hear()
        time.sleep(LAST_SECONDS)
        self._hear()
        return sorted(self.open)

    def _send(self, packet: bytes) -> None:
        while True:
            try:
                self._socket.send(packet)
            except BlockingIOError:
                time.sleep(PAUSE_SECONDS)
            except OSError as error:
                # A refusal of an earlier one comes up here; it is no reason not to go on.
                if error.errno not in NO_REASON:
                    raise
                time.sleep(PAUSE_SECONDS / 10)
                return
            else:
                return

    def _hear(self) -> None:
        while True:
            try:
                packet = self._socket.recv(256)
            except BlockingIOError:
                return
            except OSError:
                continue
            start = (packet[0] & 15) * 4 if self._four else 0
            port, mine = struct.unpack_from("!HH", packet, start)
            if mine == self._port:
                self.open.add(port)


def sweep(address: str) -> list[int]:
    """Give the open ports of an address."""
    return Sweep(address).run()


if __name__ == "__main__":
    places = sys.argv[1:]
    with multiprocessing.Pool(2) as pool:
        print(json.dumps(dict(zip(places, pool.map(sweep, places, 1), strict=True))))
