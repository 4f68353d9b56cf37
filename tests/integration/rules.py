# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that keep memory right, each tried from outside (docs/ARCHITECTURE.md)."""

import contextlib
import json
import os
import signal
import socket
import struct
import threading
import time

from bad_client import duplicate_fd
from wire import Client, text
from world import MIB, SLOW, Vmm, World, expect, fetched, mentions


def _slow_world():
    world = World(proxied=True)
    world.proxy.slow(8 * MIB)
    return world


def _begun(world, **shape):
    """A migration with a good part still missing."""
    source, destination = world.vms(**{"mem": 48, "fill": 48, "threads": 4, **shape})
    world.move(source, destination)
    world.destination.wait_import("vm", lambda i: i["present_bytes"] > 8 * MIB)
    return source, destination


def seal_without_offer():
    """Nothing is sealed that nobody waits for."""
    with World() as world:
        source, destination = world.vms()
        refusal = source.refused("seal")
        mentions(refusal, "offered")
        mentions(destination.refused("offer 127.0.0.1:1"), "destination")
        mentions(source.refused("cancel"), "nothing to cancel")
        return refusal


def fenced():
    """A sealed source that runs again: the destination is stopped and never fed any more."""
    with _slow_world() as world:
        source, destination = _begun(world)
        source.do("running")
        destination.wait_event("fenced")
        before = world.destination.imported("vm")
        expect(before["state"] == "fenced", before["state"])
        world.proxy.undisturbed()
        time.sleep(1)
        after = world.destination.imported("vm")
        expect(fetched(after["pages"]) == fetched(before["pages"]), "pages came after the fence")
        expect(world.source.exported("vm")["fenced"], "the export is not fenced")
        mentions(source.refused("seal"), "sealed already")
        mentions(source.refused("cancel"), "")
        destination.no_bad_word()
        destination.kill()
        source.do("run")
        source.verified(1)
        return f"{after['missing_bytes'] // MIB} MiB were missing"


def fenced_while_cut():
    """The fence is told when the link is back, not instead of it."""
    with _slow_world() as world:
        source, destination = _begun(world)
        world.proxy.cut()
        destination.wait_event("paused")
        source.do("running")
        present = world.destination.imported("vm")["present_bytes"]
        world.proxy.mend()
        destination.wait_event("fenced")
        expect(world.destination.imported("vm")["present_bytes"] == present, "it was fed")
        destination.no_bad_word()
        destination.kill()


@contextlib.contextmanager
def _away(source, daemon):
    """Its client has lost the daemon, and cannot come back before the end of this."""
    with socket.socket(fileno=duplicate_fd(source, "socket:")) as end:
        source.process.send_signal(signal.SIGSTOP)
        end.shutdown(socket.SHUT_RDWR)
        daemon.wait("end of the session", lambda: not daemon.stats("vm")["sessions"])
        yield
        source.process.send_signal(signal.SIGCONT)


def _answer_as_monitor(end, tids):
    """A QEMU's monitor whose guest is stopped; answers until the other end is closed."""
    answers = {"query-status": {"running": False, "status": "postmigrate"},
               "query-cpus-fast": [{"cpu-index": i, "thread-id": tid, "target": "x86_64"}
                                   for i, tid in enumerate(tids)]}
    with end.makefile("r") as lines:
        for line in lines:
            asked = json.loads(line)
            said = [{"event": "SOMETHING", "data": {}},
                    {"return": answers[asked["execute"]], "id": asked["id"]}]
            end.sendall("".join(json.dumps(word) + "\r\n" for word in said).encode())


class _Vcpu(threading.Thread):
    """A thread that no name tells from others, and that runs when told to."""

    def __init__(self):
        super().__init__(daemon=True)
        self.may_run = threading.Event()
        self.start()

    def run(self):
        self.may_run.wait()
        end = time.thread_time() + 0.5
        while time.thread_time() < end:
            pass


def _seal_by_monitor(world, vm, tids):
    """Seals an offered VM of this process, which is its QEMU."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Client(world.source.socket) as driver:
        threading.Thread(target=_answer_as_monitor, args=(ours, tids), daemon=True).start()
        words = json.dumps({"op": "seal", "vm": vm}).encode()
        driver.send(Client.OPERATOR, struct.pack("<II", 0, len(words)) + words,
                    fds=[theirs.fileno()])
        kind, body = driver.receive()
        expect(kind == Client.REPLY and b"seal" in body.bytes(body.take("II")[1]), "not sealed")


def vcpus_by_monitor():
    """A sealed source is watched by the threads its monitor names, also without its connection."""
    with World(destination={"import": {"stream_delay_ms": 60000}}) as world:
        world.add(Vmm(world.destination, "destination", mem=1, fill=1))
        vcpu = _Vcpu()
        ram = os.memfd_create("ram")
        os.write(ram, b"x" * MIB)
        with Client(world.source.socket, timeout=20) as client:
            client.send(Client.HELLO, Client.hello(
                "vm", [Client.region("region0", 1 << 30, MIB, fd=0)], role=Client.SOURCE),
                fds=[ram])
            expect(client.receive()[0] == Client.WELCOME, "no welcome")
            client.send(Client.OFFER, text(world.destination.address))
            expect(client.receive()[0] == Client.EXPORT, "no EXPORT")
            client.send(Client.EXPORTED, struct.pack("<iQ", 0, 0) + text(""))
            while client.receive()[0] != 15:  # OFFERED
                pass
            _seal_by_monitor(world, "vm", [vcpu.native_id])
        os.close(ram)
        time.sleep(0.5)
        expect(not world.source.exported("vm")["fenced"], "fenced although it stands still")
        vcpu.may_run.set()
        return world.source.wait_log("fenced", "vCPUs ran after the seal")


def fenced_while_away():
    """The source's client was away at the fence, and keeps it all the same, for the next daemon."""
    with _slow_world() as world:
        source, destination = _begun(world)
        with _away(source, world.source):
            done = world.source.ctl("abandon", "vm")
            expect(done.returncode == 0, done.stderr)
        source.wait_event("connected", count=2)
        destination.wait_event("fenced")
        done = world.source.ctl("abandon", "vm")
        expect(done.returncode == 1 and "has ended" in done.stderr, done)
        expect(json.loads(world.source.ctl("jobs", "--json").stdout) == [], "a job goes on")
        world.source.restart()
        source.wait_event("connected", count=3)
        expect(world.source.exported("vm")["fenced"], "the next daemon has forgotten the fence")
        destination.kill()


def done_while_away():
    """The source's client was away when its destination was done: it has left, and keeps nothing."""
    with World(proxied=True) as world:
        world.proxy.slow(8 * MIB)
        source, destination = _begun(world, mem=24, fill=24)
        with _away(source, world.source):
            world.proxy.undisturbed()
            destination.wait_event("released")
            world.source.wait_log("has everything")
        source.wait_event("done")
        expect(world.source.exported("vm")["state"] == "done", world.source.exported("vm"))
        mentions(source.refused(f"offer {world.destination.address}"), "left already")
        world.source.restart()
        source.wait_event("connected", count=3)
        expect(not world.source.exported("vm"), world.source.exported("vm"))
        destination.verified(1)


def fenced_then_restarted():
    """A destination's new daemon hears of the fence as well."""
    with _slow_world() as world:
        source, destination = _begun(world)
        world.destination.kill()
        source.do("running")
        world.source.restart()  # and the source's new daemon remembers it
        world.destination.start()
        destination.wait_event("fenced")
        destination.no_bad_word()
        destination.kill()


def cancel_before_seal():
    """All is undone: the destination's memory is empty and free, and a second try succeeds."""
    with World() as world:
        source, destination = world.vms()
        for attempt in range(1, 4):
            world.offer(source)
            destination.wait_event("armed", count=attempt)
            source.do("cancel")
            destination.wait_event("cancelled", count=attempt)
            destination.do("zero")
        world.move(source, destination)
        arrived, left = world.complete(source, destination)
        expect(left["pages_read"] == fetched(arrived["pages"]), arrived["pages"])


def cancel_after_seal():
    """Too late: the guest may run over there."""
    with _slow_world() as world:
        source, destination = _begun(world)
        refusal = source.refused("cancel")
        mentions(refusal, "cancel", "run already")
        mentions(source.refused(f"offer {world.destination.address}"), "leaving already")
        world.proxy.undisturbed()
        world.complete(source, destination)
        mentions(source.refused("cancel"), "cancel")
        mentions(source.refused(f"offer {world.destination.address}"), "left already")
        return refusal


def offered_twice():
    """One destination at a time."""
    with World() as world:
        source, destination = world.vms()
        world.offer(source)
        mentions(source.refused(f"offer {world.destination.address}"), "leaving already")
        source.do("seal")
        destination.do("run")
        world.complete(source, destination)


def source_exits_memfd():
    """Shared RAM: the source VMM may go after the seal, the daemon holds its memory."""
    with _slow_world() as world:
        source, destination = _begun(world)
        source.kill()
        world.proxy.undisturbed()
        destination.wait_event("released")
        destination.verified(2)
        arrived = world.destination.imported("vm")
        expect(fetched(arrived["pages"]) == source.populated, arrived["pages"])
        world.source.wait_log("its destination has everything")


def source_exits_anonymous():
    """Anonymous RAM goes with the source: pages are retried and poisoned, never read as zero."""
    with _slow_world() as world:
        source, destination = _begun(world, backing="anonymous")
        source.kill()
        world.proxy.undisturbed()
        world.destination.wait_import("vm", lambda i: i["pages"]["retried"] > 0)
        line = world.destination.wait_log("cannot be read at the source", timeout=30)
        # Whoever touches such a page gets SIGBUS, as from memory that broke; a sanitizer reports it.
        destination.wait_line("END", timeout=30)
        status = destination.process.wait(30)
        expect(status == -signal.SIGBUS or SLOW > 1 and status != 0, status)
        expect(not any(line.startswith("BAD") for line in destination.lines), destination.lines)
        return line


def source_exits_before_seal():
    """Undone: the destination is free again."""
    with World() as world:
        source, destination = world.vms()
        world.offer(source)
        source.kill()
        destination.wait_event("cancelled")
        destination.do("zero")


def destination_dies():
    """Its import ends, and the source is told; the export stays until it is let go."""
    with _slow_world() as world:
        source, destination = _begun(world)
        destination.kill()
        world.destination.wait("end of the import", lambda: not world.destination.imported("vm"))
        line = world.destination.wait_log("vm", "died with memory still missing")
        world.source.wait_log("destination lost")
        expect(world.source.exported("vm")["state"] == "sealed", world.source.exported("vm"))
        source.do("running")  # the memory is the source's again
        expect(world.source.exported("vm")["fenced"], "not fenced")
        source.do("run")
        source.verified(1)
        return line


def destination_dies_armed():
    """Before the seal: the source hears of it and runs on."""
    with World() as world:
        source, destination = world.vms()
        world.offer(source)
        destination.kill()
        source.wait_event("cancelled")
        source.refused("seal")
        again = world.add(Vmm(world.destination, "destination"))
        world.move(source, again)
        world.complete(source, again)


def regions_come_and_go():
    """Regions are added and removed while nothing moves, and refused while something does."""
    with World() as world:
        source, destination = world.vms()
        source.do("add 4")
        refusal = source.refused(f"offer {world.destination.address}")
        mentions(refusal, "region")
        destination.do("add 4")
        world.offer(source)
        moving = source.refused("remove")
        mentions(moving, "armed or exported")
        mentions(destination.refused("add 4"), "no absent region")
        source.do("cancel")
        destination.wait_event("cancelled")
        for vmm in (source, destination):
            vmm.do("remove")
            mentions(vmm.refused("remove"), "no region")
        world.move(source, destination)
        world.complete(source, destination)
        source_regions = world.destination.stats("vm")["sessions"][0]["regions"]
        expect(source_regions == 1, source_regions)
        return refusal


def same_memory():
    """A destination that maps the source's own file is refused, and the source runs on."""
    with World() as world:
        shape = {"backing": f"file:{world.folder}/ram"}
        source, _ = world.vms(**shape)
        refusal = source.refused(f"offer {world.destination.address}")
        mentions(refusal, "own memory")
        source.do("run")
        source.verified(1)
        return refusal


def unprivileged_client():
    """A VMM that may not call userfaultfd(2) itself gets the device from its daemon."""
    settings = {"daemon": {"group": "nogroup"}}
    with World(source=settings, destination=settings) as world:
        source, destination = world.vms(user="nobody")
        world.move(source, destination)
        world.complete(source, destination)
