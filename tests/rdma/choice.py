# SPDX-License-Identifier: GPL-2.0-or-later
"""Which way memory travels: what was asked for, where it can be, and why it is not."""

import json
import subprocess

from soft_roce import ADDRESSES, RoceWorld, by_rdma, by_tcp, remove_device, with_keys
from wire import Client
from world import expect, mentions


def _moved(world, vm="vm"):
    source, destination = world.vms(vm, mem=16, fill=8)
    world.move(source, destination)
    return world.complete(source, destination, passes=1)[0]


def _status(world):
    """What `postcopyctl status` prints of the import."""
    done = world.destination.ctl("status")
    expect(done.returncode == 0, done.stderr)
    return done.stdout


def auto():
    """RDMA where there is a device, TCP where there is none; postcopyctl says which."""
    with RoceWorld() as world:
        source, destination = world.vms(mem=32, fill=16)
        with_keys(world, source, destination)
        by_rdma(world.complete(source, destination, passes=1)[0], source.populated)
        status = _status(world)
        mentions(status.replace("\n", " "), "rdma")
        # The same daemons: they keep no device open that nobody uses.
        expect(remove_device().wait(20) == 0, "the device is still in use")
        arrived = _moved(world, "again")
        by_tcp(arrived, "device")
        status = _status(world)
        mentions(status.replace("\n", " "), "tcp")
        return arrived["transport"]["reason"]


def off_by_default():
    """Nobody named a network: TCP, and the reason."""
    with RoceWorld(source={"rdma": {"networks": ""}}, destination={"rdma": {"networks": ""}}) as world:
        arrived = _moved(world)
        return by_tcp(arrived, "networks")["reason"]


def destination_distrusts():
    """The destination trusts another network only."""
    with RoceWorld(destination={"rdma": {"networks": "10.98.0.0/16"}}) as world:
        arrived = _moved(world)
        return by_tcp(arrived, "networks")["reason"]


def source_distrusts():
    """The source gives no keys to a network it does not trust."""
    with RoceWorld(source={"rdma": {"networks": "10.98.0.0/16"}}) as world:
        arrived = _moved(world)
        return by_tcp(arrived, "networks")["reason"]


def tcp_wanted():
    """TCP, as the configuration wants it."""
    with RoceWorld(destination={"peer": {"transport": "tcp"}}) as world:
        arrived = _moved(world)
        by_tcp(arrived)


def tcp_for_a_peer():
    """TCP with one host, as the configuration wants it."""
    with RoceWorld(destination={"rdma": {"peers": "10.99.0.0/16=rdma, 10.99.0.1=tcp"}}) as world:
        arrived = _moved(world)
        by_tcp(arrived)


def rdma_or_nothing():
    """RDMA is asked for and cannot be had: one line, and the VM stays where it is."""
    settings = {"peer": {"transport": "rdma"}, "rdma": {"networks": "10.98.0.0/16"}}
    with RoceWorld(destination=settings) as world:
        source, destination = world.vms(mem=32, fill=16)
        refusal = source.refused(f"offer {world.destination.address}")
        mentions(refusal, "rdma", "networks")
        source.do("run")
        source.verified(1)
        destination.do("zero")
        return refusal


def locked_memory():
    """A daemon that may not pin memory says so in a line, and TCP does it."""
    with RoceWorld({"b": ("prlimit", "--memlock=65536", "setpriv", "--bounding-set", "-ipc_lock",
                          "--inh-caps", "-ipc_lock")}) as world:
        arrived = _moved(world)
        reason = by_tcp(arrived, "memlock")["reason"]
        world.destination.wait_log("memlock")
        return reason


def _prepare(world, transport):
    """Its driver's order, the connection that owns it, and the answer."""
    driver = world.add(Client(world.source.socket, timeout=60))
    return driver.ask(op="prepare", vm="vm", destination=world.destination.address,
                      transport=transport)


def _prepared(world, transport):
    """A VM whose driver wants this transport, moved; its import."""
    source, destination = world.vms(mem=32, fill=16)
    answer = _prepare(world, transport)
    expect("error" not in answer, answer)
    source.do("seal")
    destination.do("run")
    return world.complete(source, destination, passes=1)[0]


def driver_decides():
    """What whoever drives the migration wants counts before the configurations of both hosts."""
    with RoceWorld() as world:
        arrived = _prepared(world, "rdma")
        expect(arrived["transport"]["kind"] == arrived["transport"]["wanted"] == "rdma"
               and arrived["transport"]["reads"] > 0, arrived["transport"])
    rdma = {"peer": {"transport": "rdma"}}
    with RoceWorld(source=rdma, destination=rdma) as world:
        by_tcp(_prepared(world, "tcp"))
        return world.destination.ctl("status").stdout


def tcp_is_a_veto():
    """A host that is configured for TCP has no RDMA, whoever wants it; and its VMs go by TCP."""
    said = []
    tcp, rdma = {"peer": {"transport": "tcp"}}, {"peer": {"transport": "rdma"}}
    for side, settings, word in (("source", {"source": tcp}, "rdma"),
                                 ("destination", {"destination": tcp}, "rdma"),
                                 ("destination", {"source": rdma, "destination": tcp}, "auto")):
        with RoceWorld(**settings) as world:
            source, destination = world.vms(mem=32, fill=16)
            answer = _prepare(world, word)
            mentions(answer["error"], f"[peer] transport = tcp at the {side} forbids",
                     "--transport tcp")
            said.append(answer["error"])
            expect("error" not in _prepare(world, "tcp"), "--transport tcp does not help")
            source.do("seal")
            destination.do("run")
            by_tcp(world.complete(source, destination, passes=1)[0])
    return said[-1]


def tcp_since_it_left():
    """The source's next daemon is configured for TCP: no key is told any more, and the rest comes by TCP."""
    with RoceWorld(destination={"import": {"stream_delay_ms": 60000}}) as world:
        source, destination = world.vms(mem=32, fill=16)
        world.offer(source)
        source.do("seal")
        world.destination.wait_import("vm", lambda i: i["transport"]["kind"] == "rdma")
        world.source.stop()
        world.source.configure(peer={"transport": "tcp"})
        world.source.start()
        why = world.destination.wait_import(
            "vm", lambda i: i["transport"]["kind"] == "tcp" and i["transport"]["reason"])
        mentions(why["transport"]["reason"], "[peer] transport = tcp at the source forbids RDMA")
        destination.do("run")
        by_tcp(world.complete(source, destination, passes=1)[0], "forbids")
        return why["transport"]["reason"]


def _checked(world):
    """What postcopyctl check finds at the destination, by id."""
    done = world.destination.ctl("check", "--json", "--connect", "test:///default")
    return {f["id"]: f for f in json.loads(done.stdout)["checks"]}


def host_is_checked():
    """postcopyctl check finds the device, the host's address in the network, and the right to pin."""
    with RoceWorld() as world:
        found = _checked(world)
        for name, word in (("rdma", "rxe0"), ("rdma-network", f"here with {ADDRESSES[0]}"),
                           ("rdma-network", "of rxe0"), ("rdma-memory", "pin")):
            expect(found[name]["level"] == "ok", found[name])
            mentions(found[name]["text"], word)
        return found["rdma-network"]["text"]


def device_elsewhere():
    """postcopyctl check tells that the device is in another network than the one that is trusted."""
    subprocess.run(["ip", "link", "add", "elsewhere", "type", "dummy"], check=True)
    try:
        subprocess.run(["ip", "address", "add", "10.97.0.1/24", "dev", "elsewhere"], check=True)
        subprocess.run(["ip", "link", "set", "elsewhere", "up"], check=True)
        for transport, level in (("auto", "warn"), ("rdma", "fail")):
            with RoceWorld(destination={"rdma": {"networks": "10.97.0.0/24"},
                                        "peer": {"transport": transport}}) as world:
                found = _checked(world)["rdma-network"]
                expect(found["level"] == level, found)
                mentions(found["text"], "no RDMA device (rxe0) has this host's address 10.97.0.1")
        return found["text"]
    finally:
        subprocess.run(["ip", "link", "delete", "elsewhere"], check=True)
