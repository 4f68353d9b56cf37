# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that a management layer starts while their invitation waits for them (PEER_INVITE_AWAIT).

The source is a peer of our own, the hook an operator's connection.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import threading
import time
import uuid

from wire import PAGE, Client, Destination, Peer, text
from world import MIB, Vmm, World, expect, mentions

NAMELESS = (1 << 64) - 1
UUID = b"awaited-vm-00001"
SIZE = 4 * MIB
GUEST = 1 << 30


class Source(Destination):
    """A source daemon of our own, and the invitations it sends; a context manager."""

    def __init__(self, world, *, name="region0", guest=0, size=SIZE):
        super().__init__()
        self.regions = (struct.pack("<I", 1) + text(name)
                        + struct.pack("<QQQQQ", guest, size, PAGE, 0, 0))
        self.token = os.urandom(32)
        self.invitation = world.add(Peer(world.destination.address, timeout=60)).greet()
        self.invitation.send(Peer.INVITE, UUID + text("awaited") + self.token
                             + text(self.address) + self.regions + struct.pack("<II", 0, 1))
        self.control = None
        self.channels = []

    def __exit__(self, *_):
        super().__exit__()
        for channel in self.channels:
            channel.socket.close()

    def serve(self):
        """Lets the destination attach."""
        self.peer = self.control = Peer(connection=self.accept_connection()).welcome()
        self.control.expect(Peer.ATTACH)
        self.control.session = 9
        self.control.send(Peer.ATTACHED, struct.pack("<I", 0) + text("")
                          + struct.pack("<Q", 0) + bytes(32) + self.regions)
        threading.Thread(target=self._answer, args=(self.control,), daemon=True).start()

    @staticmethod
    def _answer(control):
        """As a source does, until the connection ends."""
        with contextlib.suppress(OSError):
            while message := control.receive():
                if message[0] == Peer.PING:
                    control.send(Peer.PONG)
                elif message[0] == Peer.FORECAST_REQUEST:
                    control.send(Peer.FORECAST, struct.pack("<II", 21, 0))

    def join(self, n):
        """Lets it join so many channels."""
        for _ in range(n):
            channel = Peer(connection=self.accept_connection()).welcome()
            channel.expect(Peer.JOIN)
            channel.send(Peer.JOINED, struct.pack("<I", 0) + text("") + text(""))
            self.channels.append(channel)

    def invited(self):
        """(code, text) of the answer."""
        body = self.invitation.wait(Peer.INVITED)
        return body.take("I"), body.text()


class Hook:
    """The hook's connection, and its request under way; a context manager."""

    def __init__(self, world, pid, regions=(), **words):
        self.client = Client(world.destination.socket, timeout=60)
        request = {"op": "arrive", "vm": "awaited", "uuid": str(uuid.UUID(bytes=UUID)),
                   "pid": pid, "mode": "direct", "regions": list(regions), "vcpus": [], **words}
        raw = json.dumps(request).encode()
        self.client.send(Client.OPERATOR, struct.pack("<II", 0, len(raw)) + raw)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.socket.close()

    def answer(self):
        """What it is told."""
        kind, body = self.client.receive()
        expect(kind == Client.REPLY, f"message {kind}")
        _, length = body.take("II")
        return json.loads(body.bytes(length))


@contextlib.contextmanager
def _armed(world):
    """A VM that came when it was invited, is armed, and its gate shut: (vmm, source)."""
    with Source(world) as source:
        source.invitation.expect(Peer.AWAITED)
        vmm = world.add(Vmm(world.destination, "destination", "awaited", mem=4, fill=4,
                            uuid=UUID.decode()))
        with Hook(world, vmm.process.pid) as hook:
            source.serve()
            source.join(2)
            answer = hook.answer()
            expect(answer == {"armed": True}, answer)
        code, why = source.invited()
        expect(code == 0, why)
        yield vmm, source


def _killed(vmm):
    """Its process was ended, and did not just let go of its memory."""
    vmm.process.wait(20)
    expect(vmm.process.returncode == -signal.SIGKILL, f"ended with {vmm.process.returncode}")
    expect(not any("cancelled" in line for line in vmm.lines), vmm.lines[-5:])


def armed():
    """The invitation waits, the VM comes, both are answered; the hook may go then."""
    with World() as world, _armed(world) as (vmm, source):
        time.sleep(0.5)
        expect(vmm.process.poll() is None, "it ended with its hook")
        found = world.destination.imported("awaited")
        expect(found["state"] == "armed", found)
        source.control.send(Peer.CANCEL)
        _killed(vmm)


def not_announced():
    """Nobody invited it: the hook hears so at once."""
    with World() as world, Hook(world, os.getpid()) as hook:
        began = time.monotonic()
        expect(hook.answer() == {"armed": False}, "armed")
        expect(time.monotonic() - began < 5, "that took long")
        with Hook(world, 0) as bad:
            mentions(bad.answer()["error"], "arrive", "pid")
        with Hook(world, 1, uuid="x") as bad:
            mentions(bad.answer()["error"], "arrive", "uuid")


def adopted():
    """A later daemon ends its process, too, when the source knows nothing of it any more."""
    with World() as world, _armed(world) as (vmm, source):
        world.destination.kill()
        world.destination.start()
        world.destination.wait_import("awaited", lambda found: found["state"] == "armed")
        for _ in range(50):
            try:
                peer = Peer(connection=source.accept_connection()).welcome()
                peer.expect(Peer.ATTACH)
                peer.send(Peer.BYE, struct.pack("<I", 4) + text("no VM is exported for that token")
                          + text(""))
            except (AssertionError, OSError):
                pass
            if vmm.process.poll() is not None:
                break
        _killed(vmm)


def hook_ends_early():
    """The hook goes while its VM is being armed: undone, the client only lets go."""
    with World() as world, Source(world) as source:
        source.invitation.expect(Peer.AWAITED)
        vmm = world.add(Vmm(world.destination, "destination", "awaited", mem=4, fill=4,
                            uuid=UUID.decode()))
        with Hook(world, vmm.process.pid):
            source.serve()
        code, why = source.invited()
        expect(code != 0, "invited")
        mentions(why, "hook")
        time.sleep(0.3)
        vmm.do("zero")
        return why


def source_gone():
    """The source hangs up before the VM came: a hook that comes later finds nothing announced."""
    with World() as world:
        with Source(world) as source:
            source.invitation.expect(Peer.AWAITED)
            with Source(world) as second:
                code, why = second.invited()
                expect(code == 5, why)
            source.invitation.socket.close()
        world.destination.wait_log("took its invitation back")
        with Hook(world, os.getpid()) as hook:
            expect(hook.answer() == {"armed": False}, "armed")


def _invite(world, number, host="127.0.0.1"):
    """An invitation of a VM of its own, from an address of this host."""
    connection = socket.socket()
    connection.bind((host, 0))
    name, port = world.destination.address.rsplit(":", 1)
    connection.connect((name, int(port)))
    peer = world.add(Peer(connection=connection, timeout=30)).greet()
    region = struct.pack("<I", 1) + text("ram") + struct.pack("<QQQQQ", 0, SIZE, PAGE, 0, 0)
    peer.send(Peer.INVITE, struct.pack("<QQ", 77, number) + text("vm") + os.urandom(32)
              + text("127.0.0.1:1") + region + struct.pack("<II", 0, 1))
    return peer


def room_for_others():
    """One host has its VMs waited for up to a number; that leaves room for those of others."""
    with World() as world:
        waiting = [_invite(world, number) for number in range(8)]
        for peer in waiting:
            peer.expect(Peer.AWAITED)
        body = _invite(world, 8).wait(Peer.INVITED)
        expect(body.take("I") == 5, "not busy")
        mentions(body.text(), "too many", "this host")
        _invite(world, 9, "127.0.0.2").expect(Peer.AWAITED)
        waiting[0].socket.close()
        world.destination.wait_log("took its invitation back")
        _invite(world, 10).expect(Peer.AWAITED)


def no_preload():
    """The VM was started, but its process never says HELLO: both are told."""
    with World() as world, Source(world) as source:
        source.invitation.expect(Peer.AWAITED)
        with Hook(world, os.getpid()) as hook:
            said = hook.answer()["error"]
            mentions(said, "preload", str(os.getpid()))
        code, why = source.invited()
        expect(code != 0 and why == said, why)
        return said


def hello_comes_later():
    """A preload knows its memory by address alone, and may be later than the hook, bit by bit."""
    memory = os.memfd_create("awaited")
    os.ftruncate(memory, 2 * SIZE)
    here = 0x7f0000000000

    def nameless(address):
        return Client.region("", address, SIZE, fd=0, guest=NAMELESS)

    with World() as world, Source(world, name="ram", guest=GUEST) as source:
        source.invitation.expect(Peer.AWAITED)
        blocks = [{"id": "vga", "guest_address": 0, "address": 4096, "length": MIB},
                  {"id": "ram", "guest_address": GUEST, "address": here, "length": SIZE}]
        with Hook(world, os.getpid(), blocks) as hook, Client(world.destination.socket) as client:
            time.sleep(0.2)
            client.send(Client.HELLO, Client.hello("awaited", [nameless(here)], uuid=UUID),
                        fds=[memory])
            expect(client.receive()[0] == Client.WELCOME, "no WELCOME")
            source.serve()
            expect(client.receive()[0] == Client.ARM, "not armed")
            client.socket.close()
            mentions(hook.answer()["error"], "client is gone")
    os.close(memory)
