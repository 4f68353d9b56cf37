# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons are killed and started again; the guest goes on, and what is there is not fetched again."""

import re
import subprocess
import sys
import time
from pathlib import Path

from wire import PAGE
from world import MIB, World, expect, fetched, mentions

RATE = 12 * MIB


def _slow_world():
    """A link slow enough that the middle of a stream lasts for seconds."""
    world = World(proxied=True)
    world.proxy.slow(RATE)
    return world


def _present(world, part):
    """Waits until that part of the memory is there; its bytes."""
    found = world.destination.wait_import(
        "vm", lambda i: i["populated_bytes"] and i["present_bytes"] >= i["populated_bytes"] * part)
    expect(found["missing_bytes"] > 0, f"complete already: {found['present_bytes']}")
    return found["present_bytes"]


def _finish(world, source, destination, present):
    """All else comes, and of what was there nothing comes again."""
    world.proxy.undisturbed()
    arrived, _ = world.complete(source, destination)
    pages = arrived["pages"]
    expect(arrived["adopted"], arrived)
    again = fetched(pages) * PAGE + present - source.populated * PAGE
    expect(again <= 0, f"{again} bytes of those present at the kill were fetched again: {pages}")
    return f"{present // MIB} MiB were there, {fetched(pages) * PAGE // MIB} came after"


def _killed_at(part, kills=1, **shape):
    with _slow_world() as world:
        source, destination = world.vms(**{"mem": 48, "fill": 48, "threads": 4, **shape})
        world.move(source, destination)
        for kill in range(kills):
            present = _present(world, part + kill * 0.15)
            world.destination.restart()
            destination.wait_event("connected", count=2 + kill)
        return _finish(world, source, destination, present)


def armed():
    """Before the seal: undone on both sides, and the next try succeeds."""
    with World() as world:
        source, destination = world.vms()
        world.offer(source)
        world.destination.restart()
        mentions(source.refused("seal"), "offered")
        source.do("run")  # it runs on, here
        destination.wait_event("cancelled")
        destination.do("zero")
        source.verified(1)
        source.do("stop")
        source.do("running")
        world.destination.wait("end of the import", lambda: not world.destination.imported("vm")
                               or world.destination.imported("vm")["state"] == "cancelled")
        return "undone"


def armed_and_again():
    """And it may be offered again."""
    with World() as world:
        source, destination = world.vms()
        world.offer(source)
        world.destination.restart()
        destination.wait_event("cancelled")
        world.move(source, destination)
        world.complete(source, destination)


def midway():
    """A third is there."""
    return _killed_at(0.33)


def midway_anonymous():
    """The same with anonymous memory."""
    return _killed_at(0.33, backing="anonymous")


def late():
    """Less than a twentieth is missing."""
    return _killed_at(0.955)


def twice():
    """Again while the first restart's work goes on."""
    return _killed_at(0.25, kills=2)


def at_once_again():
    """The successor dies before it has got anywhere."""
    with _slow_world() as world:
        source, destination = world.vms(mem=48, fill=48, threads=4)
        world.move(source, destination)
        present = _present(world, 0.3)
        for _ in range(3):
            world.destination.restart()
        destination.wait_event("connected", count=2)
        return _finish(world, source, destination, present)


def many_resolvers():
    """Several resolvers and bulk channels had pages under way, and faults in their queues, when they
    died."""
    with World(proxied=True,
               destination={"import": {"resolvers": 4, "shards": 4, "bulk_channels": 2,
                                       "dispatch": "home"}}) as world:
        world.proxy.slow(RATE)
        source, destination = world.vms(mem=48, fill=48, threads=16)
        world.move(source, destination)
        present = _present(world, 0.4)
        world.destination.restart()
        return _finish(world, source, destination, present)


def down_for_a_while():
    """No daemon for seconds: the guest waits for what is missing, and lives."""
    with _slow_world() as world:
        source, destination = world.vms(mem=48, fill=48, threads=4)
        world.move(source, destination)
        present = _present(world, 0.3)
        world.destination.kill()
        destination.wait_event("disconnected")
        time.sleep(3)
        expect(destination.process.poll() is None, "the VMM died")
        world.destination.start()
        return _finish(world, source, destination, present)


def stopped_by_an_operator():
    """SIGTERM, then a new daemon: as a kill, but with an exit status."""
    with _slow_world() as world:
        source, destination = world.vms(mem=48, fill=48, threads=4)
        world.move(source, destination)
        present = _present(world, 0.3)
        status = world.destination.stop()
        expect(status == 0, f"exit {status}: {world.destination.log()[-2000:]}")
        world.destination.start()
        return _finish(world, source, destination, present)


def source_daemon():
    """The source's daemon dies: the VMM, alive, brings the export back."""
    with _slow_world() as world:
        source, destination = world.vms(mem=48, fill=48, threads=4)
        world.move(source, destination)
        _present(world, 0.3)
        world.source.restart()
        destination.wait_event("paused")
        world.proxy.undisturbed()
        arrived, _ = world.complete(source, destination)
        expect(fetched(arrived["pages"]) == source.populated, arrived["pages"])
        return f"{arrived['reconnects']} reconnects"


def both_daemons():
    """And both at once."""
    with _slow_world() as world:
        source, destination = world.vms(mem=48, fill=48, threads=4)
        world.move(source, destination)
        present = _present(world, 0.3)
        world.source.kill()
        world.destination.kill()
        world.source.start()
        world.destination.start()
        return _finish(world, source, destination, present)


def _memory_of(vmm, mib):
    """Where a VMM's memfd memory lies."""
    for line in Path(f"/proc/{vmm.process.pid}/maps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw-s .*/memfd:vmm", line)
        if found and int(found[2], 16) - int(found[1], 16) == mib * MIB:
            return int(found[1], 16)
    raise AssertionError("no memory")


# Reads a byte of another process's memory, and waits for it as that process would.
READER = """
import ctypes, sys
class Range(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
byte = ctypes.create_string_buffer(1)
ctypes.CDLL(None).process_vm_readv(
    int(sys.argv[1]), ctypes.byref(Range(ctypes.addressof(byte), 1)), ctypes.c_ulong(1),
    ctypes.byref(Range(int(sys.argv[2]), 1)), ctypes.c_ulong(1), ctypes.c_ulong(0))
"""


def hole_on_its_way():
    """A fault on a hole was asked of the source, its daemon died, and nobody faults there again."""
    with World(proxied=True, destination={"import": {"around": PAGE}}) as world:
        source, destination = world.vms(mem=256, fill=1, backing="memfd")
        world.offer(source)
        world.proxy.drop("urgent", "down")
        world.proxy.drop("bulk", "down")
        source.do("seal")
        base = _memory_of(destination, 256)
        # Most chunks of the stream have no content.  Whoever touches a page leaves before it comes.
        for number in range(16):
            with subprocess.Popen([sys.executable, "-c", READER, str(destination.process.pid),
                                   str(base + number * 16 * MIB)]) as toucher:
                world.destination.wait_import("vm", lambda i, n=number: i["faults"] > n)
                toucher.kill()
        world.destination.kill()
        world.proxy.undisturbed()
        world.destination.start()
        destination.wait_event("released")  # although nobody touches them again
        destination.do("run")
        arrived, _ = world.complete(source, destination)
        expect(arrived["adopted"], arrived)
        return f"{fetched(arrived['pages'])} pages came, {source.populated} have content"
