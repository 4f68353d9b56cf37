# SPDX-License-Identifier: GPL-2.0-or-later
"""Which way memory travels: what was asked for, where it can be, and why it is not."""

import json

from soft_roce import RoceWorld, by_rdma, by_tcp, remove_device, with_keys
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


def _prepared(world, transport):
    """A VM whose driver wants this transport, moved; its import."""
    source, destination = world.vms(mem=32, fill=16)
    driver = world.add(Client(world.source.socket, timeout=60))
    answer = driver.ask(op="prepare", vm="vm", destination=world.destination.address,
                        transport=transport)
    expect("error" not in answer, answer)
    source.do("seal")
    destination.do("run")
    return world.complete(source, destination, passes=1)[0]


def driver_decides():
    """What whoever drives the migration wants counts before the configurations of both hosts."""
    tcp = {"peer": {"transport": "tcp"}}
    with RoceWorld(source=tcp, destination=tcp) as world:
        arrived = _prepared(world, "rdma")
        expect(arrived["transport"]["kind"] == arrived["transport"]["wanted"] == "rdma"
               and arrived["transport"]["reads"] > 0, arrived["transport"])
    rdma = {"peer": {"transport": "rdma"}}
    with RoceWorld(source=rdma, destination=rdma) as world:
        by_tcp(_prepared(world, "tcp"))
        return world.destination.ctl("status").stdout


def host_is_checked():
    """postcopyctl check finds the device, the host's address in the network, and the right to pin."""
    with RoceWorld() as world:
        done = world.destination.ctl("check", "--json", "--connect", "test:///default")
        found = {f["id"]: f for f in json.loads(done.stdout)["checks"]}
        for name, word in (("rdma", "rxe0"), ("rdma-network", "10.99."), ("rdma-memory", "pin")):
            expect(found[name]["level"] == "ok", found[name])
            mentions(found[name]["text"], word)
        return found["rdma-network"]["text"]
