# SPDX-License-Identifier: GPL-2.0-or-later
"""Which transport memory takes where there is no RDMA device: TCP, or a refusal that says what is missing.

With devices: tests/rdma.
"""

import os
import struct
from pathlib import Path

from wire import Client, Peer, text
from world import World, expect, host, mentions

AWAIT, TCP, RDMA = 1, 2, 4
LOOPBACK = {"networks": "127.0.0.0/8, ::1"}
ELSEWHERE = {"networks": "198.51.100.0/24"}


def _without_devices():
    if any(Path("/sys/class/infiniband").glob("*")):
        raise host.Unavailable("this host has RDMA devices")


def _prepare(world, **words):
    """An operator's order for a migration; its answer, and the connection that owns it."""
    client = world.add(Client(world.source.socket, timeout=30))
    return client.ask(op="prepare", vm="vm", destination=world.destination.address, **words)


def _still_works(world, source, destination):
    """What was refused left nothing behind: the same VM moves."""
    world.move(source, destination)
    return world.complete(source, destination, passes=1)


def refused_at_source():
    """RDMA is asked for: the source's daemon says what it lacks, and its client hears nothing of it."""
    _without_devices()
    said = []
    for rdma, *words in (({}, "off at the source", "[rdma] networks", "postcopyd.conf"),
                         (LOOPBACK, "source has no RDMA device", "postcopyctl check")):
        with World(source={"rdma": rdma}, destination={"rdma": LOOPBACK}) as world:
            source, destination = world.vms()
            for more in ({}, {"libvirt": True, "uuid": "0" * 32, "pid": 1}):
                answer = _prepare(world, transport="rdma", **more)
                mentions(answer["error"], "RDMA", "--transport tcp", *words)
            for wrong in ("roce", "", 3, None, ["tcp"]):
                mentions(_prepare(world, transport=wrong)["error"], "auto, tcp or rdma")
            expect(world.source.stats()["exports"] == [], "an export is left")
            expect(world.destination.stats()["imports"] == [], "an import is left")
            expect("invitation" not in world.destination.log(), world.destination.log())
            said.append(answer["error"])
            _still_works(world, source, destination)
    return said[-1]


def _invite(world, flags, source_address=":1"):
    """INVITE with these flags from a source of our own; (code, text) of the answer."""
    with Peer(world.destination.address, timeout=30) as peer:
        peer.greet()
        regions = struct.pack("<I", 1) + text("ram") + struct.pack("<QQQQQ", 0, 4 << 20, 4096, 0, 0)
        peer.send(Peer.INVITE, b"transport-vm-001" + text("vm") + os.urandom(32)
                  + text(source_address) + regions + struct.pack("<II", 0, flags))
        body = peer.expect(Peer.INVITED)
        return body.take("I"), body.text()


def refused_at_destination():
    """An invitation that wants RDMA: the destination says what it lacks before anything is armed."""
    _without_devices()
    for rdma, words in (({}, ("off at the destination", "[rdma] networks", "restart postcopyd")),
                        (ELSEWHERE, ("127.0.0.1", "198.51.100.0/24 at the destination")),
                        (LOOPBACK, ("destination has no RDMA device", "postcopyctl check"))):
        with World(destination={"rdma": rdma}) as world:
            source, destination = world.vms()
            for flags in (RDMA, RDMA | AWAIT):
                code, why = _invite(world, flags)
                expect(code != 0, "accepted")
                mentions(why, "RDMA", *words)
                world.destination.wait_log("invitation refused", words[0])
            _, why = _invite(world, RDMA, "198.51.100.7:1")
            mentions(why, "RDMA", "no RDMA device" if rdma is ELSEWHERE
                     else "198.51.100.7" if rdma else "off")
            _, why = _invite(world, RDMA | TCP)
            expect("RDMA" not in why, f"both flags: {why}")
            expect(world.destination.stats()["imports"] == [], "an import is left")
            _still_works(world, source, destination)
    return why


def vetoed_by_configuration():
    """A destination that is configured for TCP has no RDMA, whoever wants it."""
    _without_devices()
    for section, key, value, words in (
            ("peer", "transport", "tcp", "[peer] transport = tcp at the destination forbids"),
            ("rdma", "peers", "127.0.0.1=tcp", "[rdma] peers = tcp at the destination forbids")):
        settings = {"rdma": dict(LOOPBACK)}
        settings.setdefault(section, {})[key] = value
        with World(destination=settings) as world:
            source, destination = world.vms()
            _, why = _invite(world, RDMA)
            mentions(why, words, "127.0.0.1", "or use --transport tcp")
            arrived, _ = _still_works(world, source, destination)
            expect(arrived["transport"]["wanted"] == "tcp", arrived["transport"])
    return why


def vetoed_at_source():
    """What the source is configured for counts: RDMA asked for is refused by name, RDMA configured for gives way."""
    _without_devices()
    with World(source={"rdma": LOOPBACK, "peer": {"transport": "tcp"}},
               destination={"rdma": LOOPBACK, "peer": {"transport": "rdma"}}) as world:
        source, destination = world.vms()
        said = _prepare(world, transport="rdma")["error"]
        mentions(said, "[peer] transport = tcp at the source forbids", "--transport tcp")
        world.offer(source)
        source.do("seal")
        arriving = world.destination.imported("vm")["transport"]
        expect(arriving["wanted"] == arriving["kind"] == "tcp", arriving)
        mentions(arriving["reason"], "source is configured for TCP")
        world.destination.wait_log("pages come by TCP", "source is configured for TCP")
        destination.do("run")
        world.complete(source, destination, passes=1)
    return said


def refused_by_configuration():
    """[peer] transport and [rdma] peers count on either side, and for the hosts they name only."""
    _without_devices()
    for side in ("source", "destination"):
        for section, key, value in (("peer", "transport", "rdma"),
                                    ("rdma", "peers", "0.0.0.0/0=tcp, 127.0.0.0/8=rdma")):
            with World(**{side: {section: {key: value}}}) as world:
                source, destination = world.vms()
                said = source.refused(f"offer {world.destination.address}")
                mentions(said, "RDMA", f"off at the {side}")
                expect(destination.process.poll() is None, "the destination ended")
                daemon = world.source if side == "source" else world.destination
                daemon.stop()
                daemon.configure(peer={"transport": "rdma"},
                                 rdma={"peers": "127.0.0.0/8=auto, 127.0.0.1 = tcp"})
                daemon.start()
                (source if side == "source" else destination).wait_event("connected", count=2)
                arrived, _ = _still_works(world, source, destination)
                expect(arrived["transport"]["kind"] == "tcp"
                       and arrived["transport"]["wanted"] == "tcp", arrived["transport"])
    return said


def by_tcp():
    """auto takes TCP and says why; tcp needs no reason; the figures are those of no device."""
    _without_devices()
    said = set()
    for rdma in ({}, LOOPBACK, ELSEWHERE):
        with World(source={"rdma": rdma}, destination={"rdma": rdma}) as world:
            source, destination = world.vms()
            world.offer(source)
            source.do("seal")
            arriving = world.destination.imported("vm")["transport"]
            expect(arriving["kind"] == "tcp" and arriving["wanted"] == "auto"
                   and arriving["device"] == "", arriving)
            expect(arriving["reason"] or not rdma, "no reason is given")
            people = world.destination.ctl("status").stdout
            expect("tcp" in people and (f"no RDMA: {arriving['reason']}" in people) == bool(rdma),
                   people)
            expect("transport tcp" in world.destination.ctl("stats").stdout, "stats do not say")
            expect(("pages come by TCP" in world.destination.log()) == bool(rdma),
                   "the log is to tell it where RDMA is set up, and only there")
            destination.do("run")
            arrived, left = world.complete(source, destination, passes=1)
            for name in ("pairs", "pinned_bytes", "reads", "bytes", "landed_pages",
                         "staged_pages", "spans", "failures"):
                expect(arrived["transport"][name] == 0, arrived["transport"])
            expect(left["bytes"] > 0, left)
            _host_says(world, rdma)
            said.add(arriving["reason"])
    return "; ".join(said)


def remembered():
    """What its driver wanted counts for the next daemon too, which was told otherwise."""
    _without_devices()
    with World(source={"rdma": LOOPBACK}, destination={
            "rdma": LOOPBACK, "import": {"stream_delay_ms": 60000}}) as world:
        source, destination = world.vms()
        answer = _prepare(world, transport="tcp")
        expect("error" not in answer, answer)
        source.do("seal")
        wanted = [world.destination.imported("vm")["transport"]]
        world.destination.restart()
        wanted.append(world.destination.wait_import("vm", lambda i: i["adopted"])["transport"])
        expect([w["wanted"] for w in wanted] == ["tcp"] * 2, wanted)
        expect([w["reason"] for w in wanted] == [""] * 2, wanted)
        destination.do("run")
        world.complete(source, destination, passes=1)


def bad_word():
    """postcopyctl takes three words, and says so before it asks anybody."""
    with World() as world:
        for words in (("vm", "qemu+ssh://other/system"),
                      ("--source-qmp", "x", "--destination-qmp", "x", "--destination", "x:1", "vm")):
            done = world.source.ctl("migrate", "--transport", "infiniband", *words)
            expect(done.returncode == 2, done)
            mentions(done.stderr, "postcopyctl:", "infiniband", "auto, tcp or rdma")
        return done.stderr.strip()


def _host_says(world, rdma):
    """Of the host: no devices, nothing pinned, what was configured."""
    found = world.destination.stats()["rdma"]
    expect(found["devices"] == [] and found["pinned_bytes"] == found["pinned_peak_bytes"] == 0,
           found)
    expect(found["pinned_most_bytes"] == 1 << 30 and found["transport"] == "auto", found)
    expect(found["networks"] == rdma.get("networks", "") and found["addresses"] == []
           and found["loopback"] == (rdma is LOOPBACK), found)
    people = world.destination.ctl("status").stdout
    expect(("RDMA on" in people) == bool(rdma), people)
