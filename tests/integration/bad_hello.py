# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client says of itself and its memory in a HELLO, and that is not or cannot be so."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys

from bad_client import _busy_world, _ended
from wire import Client, text
from world import MIB, Vmm, expect, mentions

SYSCALL_USERFAULTFD = 323
UFFDIO_API = 0xc018aa3f

CONNECTS = """
import socket, sys
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect(sys.argv[1])
socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b"x"], [client.fileno()])
"""


def another_name():
    """Whoever is known by its uuid cannot take the name of another process's VM besides."""
    with _busy_world() as world, Client(world.destination.socket) as first:
        region = Client.region("r", 1 << 30, MIB)
        uuid = os.urandom(16)
        first.send(Client.HELLO, Client.hello("mine", [region], uuid=uuid))
        expect(first.receive()[0] == Client.WELCOME, "no welcome")
        with Client(world.destination.socket) as client:
            client.send(Client.HELLO, Client.hello("bystander", [region], uuid=uuid))
            said = _ended(client, "bystander", "already")
        expect(len(world.destination.stats("bystander")["sessions"]) == 1, "two of that name")
        expect(first.ask(op="status")["version"], "its own connection was closed all the same")
        # Its own two VMs become one, of which no connection is left behind.
        with Client(world.destination.socket) as second:
            second.send(Client.HELLO, Client.hello("other", [region], uuid=os.urandom(16)))
            expect(second.receive()[0] == Client.WELCOME, "no welcome")
            with Client(world.destination.socket) as client:
                client.send(Client.HELLO, Client.hello("other", [region], uuid=uuid))
                expect(client.receive()[0] == Client.WELCOME, "no welcome")
                expect(first.ended() and second.ended(), "its earlier connections go on")
        return said


@contextlib.contextmanager
def _userfaultfd(features=0):
    """One of our own, with nothing registered."""
    fd = ctypes.CDLL(None, use_errno=True).syscall(SYSCALL_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
    expect(fd >= 0, f"userfaultfd: {os.strerror(ctypes.get_errno())}")
    try:
        fcntl.ioctl(fd, UFFDIO_API, struct.pack("<QQQ", 0xaa, features, 0))
        yield fd
    finally:
        os.close(fd)


def _regions(n, size):
    """As many of the tests' VMM's regions."""
    return [Client.region(f"region{i}", (i + 1) << 30, size, guest=i * (size + (1 << 30)))
            for i in range(n)]


def _arm(world, client, source, hello, uffd):
    """This process becomes the destination of a VM, which is offered to it and not sealed; or the
    reason why not."""
    client.send(Client.HELLO, hello)
    expect(client.receive()[0] == Client.WELCOME, "no welcome")
    begun = source.begin(f"offer {world.destination.address}")
    kind, body = client.receive()
    expect(kind == Client.ARM, f"message {kind} instead of ARM")
    _, _, n = body.take("IQI")
    client.send_raw(Client.HEADER.pack(Client.ARMED, 1, client.serial, n)
                    + struct.pack("<iQ", 0, 0) + text(""), [uffd] * n)
    return source.answered(begun)


def large_pages():
    """Memory in pages too large to be asked for is refused by its name, also where it is absent."""
    huge = 1 << 30
    size = 4 * MIB
    with _busy_world() as world:
        source = world.add(Vmm(world.source, "source", "large", mem=4, fill=4))
        first = Client.region("region0", 1 << 30, size)
        mapped = Client.region("huge", 4 << 30, huge, page_size=huge, guest=1 << 40)
        absent = Client.region("huge", 0, huge, page_size=huge, guest=1 << 40, absent=True)
        for regions in ([mapped], [first, mapped], [first, absent]):
            with Client(world.destination.socket) as client:
                client.send(Client.HELLO, Client.hello("large", regions))
                expect(client.receive()[0] == Client.WELCOME, "no welcome")
                mentions(source.refused(f"offer {world.destination.address}"), "'huge'", "1024 MiB")
            with Client(world.destination.socket) as client, open("/dev/null", "rb") as null:
                client.send(Client.HELLO, Client.hello("large", regions, shards=[(0, huge)]),
                            fds=[null.fileno()] * 2)
                said = _ended(client, "'huge'", "1024 MiB")
        return said


@contextlib.contextmanager
def _orphan(daemon):
    """A connection whose process has ended, and left it to us."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run([sys.executable, "-c", CONNECTS, str(daemon.socket), str(theirs.fileno())],
                       pass_fds=[theirs.fileno()], check=True)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    with Client(fd=fds[0]) as client:
        yield client


def process_is_gone():
    """A VM whose process cannot be watched neither comes nor goes: nobody would notice its end."""
    size = 4 * MIB
    region = Client.region("region0", 1 << 30, size)
    with _busy_world() as world:
        with _orphan(world.destination) as client:
            client.send(Client.HELLO, Client.hello("gone", [region]))
            _ended(client, "process")
        with _orphan(world.destination) as client, _userfaultfd() as uffd:
            client.send(Client.HELLO, Client.hello("gone", [region], shards=[(0, size)]),
                        fds=[uffd, uffd])
            _ended(client, "process")
        with _orphan(world.destination) as client:
            client.send(Client.HELLO, Client.hello("gone", [region], role=Client.SOURCE))
            return _ended(client, "process")


def other_regions():
    """A client that comes back to its import with other regions than it has is refused."""
    size = 2 * MIB
    with _busy_world() as world, _userfaultfd() as uffd:
        source = world.add(Vmm(world.source, "source", "back", mem=4, fill=4, regions=2))
        with Client(world.destination.socket) as client:
            expect(not _arm(world, client, source, Client.hello("back", _regions(2, size)), uffd),
                   "the offer failed")
        world.destination.wait("end of the session", lambda: not world.destination.stats(
            "back")["sessions"])
        good = _regions(2, size)
        for there in (good[:1], [*good, Client.region("more", 3 << 30, size, guest=1 << 40)],
                      [good[0], Client.region("region1", 2 << 30, MIB, guest=size + (1 << 30))],
                      [good[0], Client.region("other", 2 << 30, size, guest=size + (1 << 30))],
                      good[::-1]):
            with Client(world.destination.socket) as client:
                client.send(Client.HELLO, Client.hello("back", there, shards=[(0, MIB)]),
                            fds=[uffd, uffd])
                said = _ended(client, "regions are not those")
        with Client(world.destination.socket) as client:
            client.send(Client.HELLO, Client.hello("back", good, shards=[(0, MIB)]),
                        fds=[uffd, uffd])
            expect(client.receive()[0] == Client.WELCOME, "its own regions are refused as well")
            expect(world.destination.imported("back")["state"] == "armed", "another import")
        source.do("cancel")
        return said


def userfaultfd_of_forks():
    """A userfaultfd that hands its reader another fd whenever its process forks is not read."""
    with _busy_world() as world:
        source = world.add(Vmm(world.source, "source", "forks", mem=4, fill=4))
        hello = Client.hello("forks", _regions(1, 4 * MIB))
        for refused, features in enumerate((1 << 1, 1 << 2, 1 << 3)):  # FORK, REMAP, REMOVE
            with Client(world.destination.socket) as client, _userfaultfd(features) as uffd:
                expect(_arm(world, client, source, hello, uffd), f"features {features} are taken")
            world.destination.wait("refusal", lambda n=refused: world.destination.log().count(
                "forks: arrival undone: the client sent no userfaultfd") == n + 1)
        with Client(world.destination.socket) as client, _userfaultfd() as uffd:
            expect(not _arm(world, client, source, hello, uffd), "no userfaultfd at all is taken")
            source.do("cancel")
