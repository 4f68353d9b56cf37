# SPDX-License-Identifier: GPL-2.0-or-later
"""A source's daemon of assist mode, well behaved unless told otherwise: it answers ASK, seals when it is
asked to, and its memory's pages say in every word which they are (assisted_memory.h)."""

import contextlib
import os
import socket
import struct
import threading

from wire import PAGE, Peer, text

ASK, ASKED, SEAL, PONG, PROGRESS, RELAY, RUNNING = 28, 29, 30, 24, 15, 11, 12
TOKEN_UNKNOWN, IO = 4, 10


MAIN, SMALL = 0, 1  # as the guest numbers its regions


def word(region, page):
    """What every word of a page holds."""
    return (region + 1) << 48 | 0xa5 << 40 | page


class Lender:
    """A context manager; regions are (id, guest address, length), "main" and "small", in an order of its
    own."""

    def __init__(self, regions):
        self.regions = regions
        self.vm_token = os.urandom(32)
        self.export_token = os.urandom(32)
        self.secret = os.urandom(32)
        self.seal = 0
        self.seals = True         # when it is asked to
        self.refusal = ""         # of ASK
        self.unreadable = set()   # pages of main
        self.zero = set()
        self.asked = []           # (uuid, name, token, connection) of each ASK
        self.read_pages = 0
        self.seal_requests = 0
        self.released = threading.Event()
        self.knows = True         # of the export
        self.answers_ask = None   # instead of us: called with the peer
        self.corrupt = None       # instead of a page's reply: called with peer and item
        self._speaks = threading.Event()
        self._speaks.set()
        self._lock = threading.Lock()
        self._controls = []
        self._connections = []
        self._alive = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._speaks.set()
        self.kill()

    def silence(self):
        """Nothing is said any more, and nobody is told."""
        self._speaks.clear()

    def speak(self):
        """It goes on where it was."""
        self._speaks.set()

    def kill(self):
        """All its connections end, and nobody gets a new one."""
        self._alive = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self):
        """All its connections end."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()
        self._controls.clear()

    def tell(self, kind, body=b""):
        """A frame to whoever is attached."""
        for peer in self._controls:
            peer.send(kind, body)

    def attached(self):
        """True while somebody is."""
        return bool(self._controls)

    def _accept(self):
        while self._alive:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self._speaks.wait()
            peer = Peer(connection=connection, timeout=None).welcome()
            message = peer.receive()
            self._speaks.wait()
            if not message:
                return
            kind, body = message
            if kind == ASK:
                self._ask(peer, body)
            elif kind == Peer.ATTACH:
                self._attach(peer, body)
            elif kind == Peer.JOIN:
                self._channel(peer, body)
        except (OSError, AssertionError, struct.error, ValueError, TypeError):
            pass
        finally:
            connection.close()

    def _ask(self, peer, body):
        self.asked.append((body.bytes(16), body.text(), body.bytes(32), body.text()))
        if self.answers_ask:
            self.answers_ask(peer)
            return
        code, why = (11, self.refusal) if self.refusal else (0, "")
        peer.send(ASKED, struct.pack("<I", code) + text(why) + self.export_token)
        peer.receive()

    def _describe(self):
        return (struct.pack("<I", len(self.regions))
                + b"".join(text(name) + struct.pack("<QQQQQ", guest, length, PAGE, 0, 0)
                           for name, guest, length in self.regions))

    def _attach(self, peer, body):
        body.bytes(16)
        body.text()
        if not self.knows or body.bytes(32) != self.export_token:
            peer.send(Peer.BYE, struct.pack("<I", TOKEN_UNKNOWN) + text("token unknown") + text(""))
            return
        peer.session = 7
        peer.send(Peer.ATTACHED, struct.pack("<I", 0) + text("") + struct.pack("<Q", self.seal)
                  + self.secret + self._describe())
        self._controls.append(peer)
        try:
            self._control(peer)
        finally:
            if peer in self._controls:
                self._controls.remove(peer)

    def _control(self, peer):
        while message := peer.receive():
            self._speaks.wait()
            kind, _ = message
            peer.session = 7
            if kind == Peer.PING:
                peer.send(PONG)
            elif kind == SEAL:
                self.seal_requests += 1
                if self.seals:
                    self.seal = self.seal or 0x1234
                    peer.send(Peer.SEALED, struct.pack("<Q", self.seal))
            elif kind == Peer.RELEASED:
                self.released.set()
                peer.send(Peer.RELEASED)

    def _channel(self, peer, body):
        if body.bytes(32) != self.secret:
            return
        peer.send(Peer.JOINED, struct.pack("<I", 0) + text("") + text(""))
        while True:
            head = peer._exactly(Peer.HEADER.size)  # pylint: disable=protected-access
            if head is None:
                return
            length, kind, _, session, generation, _ = Peer.HEADER.unpack(head)
            body = peer._exactly(length)  # pylint: disable=protected-access
            if kind != Peer.READ or body is None:
                return
            (n,) = struct.unpack_from("<I", body)
            for item in struct.iter_unpack("<QQII", body[4:4 + 24 * n]):
                self._speaks.wait()
                (self.corrupt or self._answer)(peer, (session, generation), item)

    def _kind(self, region, page):
        if region == MAIN and page in self.unreadable:
            return Peer.ERROR
        return Peer.ZERO if region == MAIN and page in self.zero else Peer.DATA

    def reply(self, peer, ids, item, kind, first, count, content=b"", seal=None):
        """One frame about some pages of an item."""
        cookie = item[0]
        body = struct.pack("<QIIII", self.seal if seal is None else seal, first, count,
                           IO if kind == Peer.ERROR else 0, 0) + content
        peer.socket.sendall(Peer.HEADER.pack(len(body), kind, 0, *ids, cookie) + body)

    def _answer(self, peer, ids, item):
        _, page, region, count = item
        region = MAIN if self.regions[region][0] == "main" else SMALL
        at = 0
        while at < count:
            kind = self._kind(region, page + at)
            n = 1
            while at + n < count and self._kind(region, page + at + n) == kind:
                n += 1
            content = b""
            if kind == Peer.DATA:
                content = b"".join(struct.pack("<Q", word(region, page + at + i)) * (PAGE // 8)
                                   for i in range(n))
            with self._lock:
                self.read_pages += n
            self.reply(peer, ids, item, kind, at, n, content)
            at += n
