# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes wrong over TCP, from strangers and from peers: one clear line each."""

import contextlib
import os
import random
import select
import socket
import struct
import time

from bad_client import _busy_world
from wire import PAGE, Client, Destination, Peer, text
from world import MIB, Vmm, World, expect, mentions

LOG_LIMIT_S = 10  # of a line that strangers could have said again and again


def _refused(peer, *words):
    code, why = peer.refusal()
    expect(code != 0, "no code")
    mentions(why, *words)
    expect(peer.receive() is None, "the connection goes on")
    return why


def garbage():
    """Noise, other protocols and lengths that lie."""
    with _busy_world() as world:
        noise = random.Random(2)
        openings = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(500),
                    b"\xff" * 100, Peer.HEADER.pack(9, 1, 0, 0, 0, 0) + b"123456789",
                    Peer.HEADER.pack(1 << 31, Peer.START, 0, 0, 0, 0),
                    Peer.HEADER.pack(9, Peer.DATA, 0, 0, 0, 0) + bytes(9),
                    *(noise.randbytes(noise.randrange(24, 3000)) for _ in range(50))]
        for opening in openings:
            with Peer(world.source.address) as peer:
                peer.socket.sendall(opening)
                message = peer.receive()
                expect(message is None or message[0] == Peer.BYE, message)
        world.source.wait_log("refused", "does not speak")
        return f"{len(openings)} openings"


def truncated():
    """Frames whose end never comes."""
    with _busy_world() as world:
        for sent in (b"", b"\x09", Peer.HEADER.pack(9, Peer.START, 0, 0, 0, 0),
                     Peer.HEADER.pack(9, Peer.START, 0, 0, 0, 0) + b"1234"):
            with Peer(world.source.address) as peer:
                peer.socket.sendall(sent)
        with Peer(world.source.address) as peer:
            peer.greet().send(Peer.ATTACH, b"1234", length=60000)


def versions():
    """Another version, another machine, a wish for TLS."""
    with _busy_world() as world:
        said = []
        for change, words in (({"lowest": 8, "highest": 9}, ("8", "upgrade")),
                              ({"machine": "pdp11"}, ("pdp11",)),
                              ({"page_size": 65536}, ("65536",))):
            with Peer(world.source.address) as peer:
                peer.start()
                peer.expect(Peer.STARTED)
                peer.expect(Peer.HELLO)
                peer.hello(**change)
                said.append(_refused(peer, *words))
        with Peer(world.source.address) as peer:
            peer.start(tls=1)
            _refused(peer, "TLS")
        with Peer(world.source.address) as peer:
            peer.start(magic=1)
            _refused(peer, "protocol")
        world.source.wait_log("refused", "upgrade")
        return said[0]


def strangers():
    """A token, a secret or a session that is not known; frames out of turn."""
    with _busy_world() as world:
        with Peer(world.source.address) as peer:
            peer.greet().send(Peer.ATTACH, bytes(16) + text("bystander") + os.urandom(32))
            said = _refused(peer, "token")
        for session in (0, 1, 0xffffffff):
            with Peer(world.source.address) as peer:
                peer.greet().join(session, os.urandom(32), Peer.BULK)
                _refused(peer, "secret")
        for kind in (Peer.READ, Peer.SEALED, Peer.PING, Peer.RELEASED, 77):
            with Peer(world.source.address) as peer:
                peer.greet().send(kind, struct.pack("<I", 0))
                _refused(peer, "")
        return said


def _idle_strangers(crowd, world, n):
    """So many connections from another address, all silent."""
    host, port = world.source.address.rsplit(":", 1)
    return [crowd.enter_context(socket.create_connection((host, int(port)), 5, ("127.0.0.2", 0)))
            for _ in range(n)]


def _still_open(connections):
    """Those that the daemon holds."""
    ended = select.poll()
    for connection in connections:
        ended.register(connection, select.POLLIN)
    return len(connections) - len(ended.poll(0))


def idle_strangers():
    """However many connect and say nothing, an import that lost its link comes back meanwhile."""
    with World(proxied=True) as world, contextlib.ExitStack() as crowd:
        world.proxy.slow(4 * MIB)
        source, destination = world.vms(mem=48, fill=48)
        world.move(source, destination)
        world.destination.wait_import("vm", lambda i: i["present_bytes"] > MIB)
        begin = time.monotonic()
        strangers = _idle_strangers(crowd, world, 1100)
        world.source.wait("end of most", lambda: _still_open(strangers) <= 64)
        world.proxy.cut()
        world.destination.wait_import("vm", lambda i: i["state"] == "paused")
        world.proxy.mend()
        world.destination.wait_import("vm", lambda i: i["state"] == "running", timeout=5)
        expect(_still_open(strangers) > 0, "it came back only when the strangers were gone")
        said = [line for line in world.source.log().splitlines() if "too many connections" in line]
        most = 1 + (time.monotonic() - begin) // LOG_LIMIT_S
        expect(1 <= len(said) <= most, f"{len(said)} lines in the log")
        world.proxy.undisturbed()
        world.complete(source, destination)
        return said[0]


def _offered(world, vm="prey"):
    """A source VM whose destination's daemon we are; VM, Destination, Invitation."""
    source = world.add(Vmm(world.source, "source", vm, mem=4, fill=4))
    destination = world.add(Destination())
    begun = source.begin(f"offer {destination.address}")
    return source, destination, destination.invited(), begun


def _attached(world, invitation):
    """Our control connection; and session, secret."""
    control = world.add(Peer(world.source.address)).greet()
    control.attach(invitation)
    _, secret = control.attached()
    return control, control.session, secret


def _channel(world, session, secret, kind=Peer.URGENT):
    channel = world.add(Peer(world.source.address)).greet()
    channel.join(session, secret, kind)
    channel.expect(Peer.JOINED)
    return channel


def reads_of_a_peer():
    """Reads before the seal, out of range, after the fence; each is answered, none with pages."""
    with _busy_world() as world:
        source, destination, invitation, begun = _offered(world)
        with Peer(world.source.address) as peer:
            peer.greet().attach(invitation, token=os.urandom(32))
            _refused(peer, "token")
        control, session, secret = _attached(world, invitation)
        with Peer(world.source.address) as peer:
            peer.greet().join(session, os.urandom(32), Peer.URGENT)
            _refused(peer, "secret")
        channel = _channel(world, session, secret)
        channel.read(0, 0, 1)
        expect(channel.error_code() == Peer.UNSEALED, "read before the seal")
        destination.accept()
        expect(source.answered(begun) is None, "the offer failed")
        channel.read(0, 0, 1)
        expect(channel.error_code() == Peer.UNSEALED, "read before the seal")
        source.do("seal")
        seal = control.wait(Peer.SEALED).take("Q")
        channel.read(0, 3, 1)
        body = channel.expect(Peer.DATA)
        expect(body.take("QIIII")[0] == seal, "another seal")
        expect(len(body.bytes(PAGE)) == PAGE, "not a page")
        for region, page, count in ((1, 0, 1), (127, 0, 1), (0xffffffff, 0, 1), (0, 1024, 1),
                                    (0, 1 << 60, 1), (0, 1023, 2), (0, 0, 0), (0, 0, 513),
                                    (0, 0xffffffffffffffff, 2)):
            channel.read(region, page, count)
            expect(channel.error_code() == Peer.RANGE, f"{region} {page} {count}")
        source.do("running")
        control.wait(Peer.FENCED)
        channel.read(0, 0, 1)
        expect(channel.error_code() == Peer.FENCED_CODE, "read after the fence")
        with Peer(world.source.address) as late:
            late.greet().attach(invitation)
            body = late.expect(Peer.ATTACHED)
            expect(body.take("I") == Peer.FENCED_CODE, "attached to a fenced export")
            return body.text()


def malformed_of_a_peer():
    """A peer that attached and then sends nonsense loses that connection, and no other."""
    with _busy_world() as world:
        source, destination, invitation, begun = _offered(world)
        control, session, secret = _attached(world, invitation)
        destination.accept()
        expect(source.answered(begun) is None, "the offer failed")
        source.do("seal")
        control.wait(Peer.SEALED)
        good = _channel(world, session, secret)
        for nonsense in (
                lambda p: p.read(0, 0, 1, n=65), lambda p: p.read(0, 0, 1, n=64),
                lambda p: p.send(Peer.READ, b""), lambda p: p.send(Peer.DATA, bytes(100)),
                lambda p: p.send(99), lambda p: p.send(Peer.READ, length=1 << 30),
                lambda p: p.send(Peer.MAP_REQUEST, struct.pack("<IQ", 0, 1 << 40)),
                lambda p: p.send(Peer.MAP_REQUEST, struct.pack("<IQ", 9, 0)),
                lambda p: p.send(Peer.READ, struct.pack("<IQQII", 1, 0, 0, 0, 1), generation=9)):
            bad = _channel(world, session, secret, Peer.BULK)
            nonsense(bad)
            expect(bad.receive() is None, "the connection goes on")
            good.read(0, 1, 1)
            good.expect(Peer.DATA).bytes(24 + PAGE)
        world.source.wait_log("prey", "malformed")
        source.do("running")


def cancelled():
    """The order to undo all reaches a destination that is busy telling something itself."""
    with World() as world:
        source, destination, invitation, begun = _offered(world)
        control, _, _ = _attached(world, invitation)
        destination.accept()
        expect(source.answered(begun) is None, "the offer failed")
        source.do("cancel")
        for _ in range(5):
            control.send(Peer.PING)  # a reset would end this before CANCEL is read
            time.sleep(0.05)
        control.wait(Peer.CANCEL)
        expect(control.receive() is None, "the connection goes on")


def released_too_early():
    """A destination that has everything before there is anything to have is lost: all is undone."""
    with World() as world:
        source, destination, invitation, begun = _offered(world)
        control, _, _ = _attached(world, invitation)
        destination.accept()
        expect(source.answered(begun) is None, "the offer failed")
        control.send(Peer.RELEASED)
        while control.receive():  # CANCEL may still come
            pass
        source.wait_event("cancelled")
        source.refused("seal")
        source.do("run")
        source.verified(1)
        return world.source.wait_log("destination lost")


def silent_peer():
    """A destination that never answers the invitation: the source says so and runs on."""
    with World() as world:
        source, destination, _, begun = _offered(world)
        destination.peer.socket.close()
        refusal = source.answered(begun)
        expect(refusal, "the offer succeeded")
        mentions(refusal, "daemon at")
        source.refused("seal")
        source.do("run")
        source.verified(1)
        return refusal


def _offer_to(world, name, there):
    """Offers a VM to a destination with these regions; the refusal."""
    source = world.add(Vmm(world.source, "source", name, mem=4, fill=4, regions=2))
    with Client(world.destination.socket) as client:
        client.send(Client.HELLO, Client.hello(name, there))
        expect(client.receive()[0] == Client.WELCOME, "no welcome")
        refusal = source.refused(f"offer {world.destination.address}")
    source.do("run")
    source.verified(1)
    return refusal


def memory_differs():
    """Count, length, page size, place or id of the regions differ."""
    half = 2 * MIB
    step = half + (1 << 30)

    def two(**change):
        return [Client.region("region0", 1 << 30, half),
                Client.region(change.get("name", "region1"), 1 << 34,
                              change.get("length", half), guest=change.get("guest", step),
                              page_size=change.get("page_size", PAGE))]

    with _busy_world() as world:
        said = {name: _offer_to(world, name, there) for name, there in (
            ("count", two()[:1]),
            ("more", [*two(), Client.region("region2", 1 << 36, half, guest=1 << 40)]),
            ("length", two(length=MIB)), ("page size", two(page_size=half)),
            ("place", two(guest=1 << 40)), ("id", two(name="other")))}
        for name, refusal in said.items():
            mentions(refusal, "destination")
            print(f"{name}: {refusal}", flush=True)
        mentions(said["length"], "region1")
        mentions(said["page size"], "region1")


def unknown_vm():
    """The destination has no such VM, or no daemon."""
    with _busy_world() as world:
        source = world.add(Vmm(world.source, "source", "lonely", mem=4, fill=4))
        refusal = source.refused(f"offer {world.destination.address}")
        mentions(refusal, "no such VM")
        mentions(source.refused("offer 127.0.0.1:1"), "127.0.0.1:1", "refused")
        mentions(source.refused("offer nonsense"), "HOST:PORT")
        logged = [line for line in world.source.log().splitlines() if "lonely: invitation" in line]
        expect(len(logged) == 2, f"not a line for each that was sent: {logged}")
        mentions(logged[0], f"to {world.destination.address} failed", refusal)
        mentions(logged[1], "to 127.0.0.1:1 failed", "Connection refused")
        source.do("run")
        source.verified(1)
        return refusal


def hostile_source():
    """A source that invites, and then serves nonsense: the import says so, others go on."""
    with _busy_world() as world:
        vmm = world.add(Vmm(world.destination, "destination", "victim", mem=4, fill=4))
        with Peer(world.destination.address) as peer:
            peer.greet()
            peer.send(Peer.INVITE, bytes(16) + text("victim") + bytes(32) + text("127.0.0.1:1")
                      + struct.pack("<I", 1) + text("region0")
                      + struct.pack("<QQQQQ", 0, 4 * MIB, PAGE, 0, 0) + struct.pack("<II", 0, 0))
            body = peer.expect(Peer.INVITED)
            expect(body.take("I") != 0, "invited by a source that is not there")
            mentions(body.text(), "127.0.0.1:1")
        time.sleep(0.2)
        vmm.do("zero")
        with Destination() as source, Peer(world.destination.address) as peer:
            peer.greet()
            peer.send(Peer.INVITE, bytes(16) + text("victim") + bytes(32) + text(source.address)
                      + struct.pack("<I", 1) + text("region0")
                      + struct.pack("<QQQQQ", 0, 4 * MIB, PAGE, 0, 0) + struct.pack("<II", 0, 0))
            source.peer = Peer(connection=source.accept_connection()).welcome()
            source.peer.expect(Peer.ATTACH)
            source.peer.send(Peer.ATTACHED, b"\xff" * 100)
            body = peer.expect(Peer.INVITED)
            expect(body.take("I") != 0, "invited by a source that speaks nonsense")
            said = body.text()
            mentions(said, "")
        vmm.do("zero")
        return said


def source_by_name():
    """A source that is named, not numbered: nobody waits for a name server of its choice."""
    with _busy_world() as world:
        world.add(Vmm(world.destination, "destination", "victim", mem=4, fill=4))
        with Peer(world.destination.address) as peer:
            peer.greet()
            peer.send(Peer.INVITE, bytes(16) + text("victim") + bytes(32) + text("localhost:1")
                      + struct.pack("<I", 1) + text("region0")
                      + struct.pack("<QQQQQ", 0, 4 * MIB, PAGE, 0, 0) + struct.pack("<II", 0, 0))
            body = peer.expect(Peer.INVITED)
            expect(body.take("I") != 0, "invited")
            said = body.text()
            mentions(said, "numeric")
            return said
