# SPDX-License-Identifier: GPL-2.0-or-later
"""A TCP proxy between two daemons that knows their channels and can disturb each of them.

The destination connects to the source: with the source's `advertise` pointing here, all channels
pass through.  A channel is known by its ATTACH or JOIN frame (protocol/peer.h).
"""

import socket
import struct
import threading
import time

HEADER = struct.Struct("<IHHIIQ")
ATTACH, JOIN = 6, 8
TOKEN_BYTES = 32
KINDS = ("control", "urgent", "bulk", "relay")
CHUNK = 1 << 16

UP = "up"      # to the source
DOWN = "down"  # to the destination


class Channel:
    """One connection through the proxy."""

    def __init__(self, proxy, near, far):
        self.kind = None
        self.bytes = {UP: 0, DOWN: 0}
        self.near, self.far = near, far  # the destination's socket, the source's
        self._proxy = proxy
        self._head = bytearray()         # of UP, until the kind is known
        for direction, sender, receiver in ((UP, near, far), (DOWN, far, near)):
            threading.Thread(target=self._pump, args=(direction, sender, receiver),
                             daemon=True).start()

    def close(self):
        """Ends both sides."""
        for end in (self.near, self.far):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _identify(self, data):
        self._head += data
        at = 0
        while self.kind is None and at + HEADER.size <= len(self._head):
            length, kind = HEADER.unpack_from(self._head, at)[:2]
            end = at + HEADER.size + length
            if end > len(self._head):
                return
            if kind == ATTACH:
                self.kind = "control"
            elif kind == JOIN:
                body = self._head[at + HEADER.size:end]
                self.kind = KINDS[struct.unpack_from("<I", body, TOKEN_BYTES)[0]]
            at = end

    def _pump(self, direction, sender, receiver):
        try:
            while data := sender.recv(CHUNK):
                if direction == UP and self.kind is None:
                    self._identify(data)
                data = self._proxy.filter(self, direction, data)
                self.bytes[direction] += len(data)
                if data:
                    receiver.sendall(data)
            receiver.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()


class Proxy:
    """Listens on a port of its own and passes everything on to an address; a context manager."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.channels = []
        self._lock = threading.Lock()
        self._drop = {}      # (kind, direction): after so many bytes everything is dropped
        self._rate = {}      # kind: bytes a second to the destination
        self._open = threading.Event()
        self._open.set()
        self.dropped = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends everything."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self._open.set()
        for channel in self.channels:
            channel.close()

    def drop(self, kind, direction, after=0):
        """From the after-th byte on, what goes that way over channels of a kind is lost."""
        self._drop[kind, direction] = after

    def undisturbed(self):
        """Drops and limits nothing any more."""
        self._drop.clear()
        self._rate.clear()

    def limit(self, kind, rate):
        """So many bytes a second to the destination; None: as many as fit."""
        self._rate[kind] = rate

    def cut(self):
        """The link is down: all connections end, new ones do too."""
        self._open.clear()
        for channel in self.channels:
            channel.close()

    def mend(self):
        """The link is up again."""
        self._open.set()

    def total(self, kind, direction):
        """Bytes that went that way so far."""
        return sum(channel.bytes[direction] for channel in self.channels if channel.kind == kind)

    def filter(self, channel, direction, data):
        """What is left of data, possibly later."""
        after = self._drop.get((channel.kind, direction))
        if after is not None:
            kept = max(0, after - channel.bytes[direction])
            self.dropped += max(0, len(data) - kept)
            data = data[:kept]
        rate = self._rate.get(channel.kind) if direction == DOWN else None
        if rate:
            with self._lock:
                time.sleep(len(data) / rate)
        return data

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(self._to, 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.channels.append(Channel(self, near, far))
