# SPDX-License-Identifier: GPL-2.0-or-later
"""The link between the daemons goes away for a while, loudly or without a word."""

import signal
import socket
import time

from bad_client import duplicate_fd, has_thread
from wire import PAGE, Peer
from world import MIB, World, expect, fetched

SECONDS = 5
RATE = 12 * MIB

# What may have been asked for and got lost: the stream's window, and what faults took along.
LOST_MAX = 6 * MIB // PAGE


def _severed(sever, mend, **shape):
    with World(proxied=True) as world:
        world.proxy.slow(RATE)
        source, destination = world.vms(**{"mem": 48, "fill": 48, "threads": 4, **shape})
        world.move(source, destination)
        world.destination.wait_import("vm", lambda i: i["present_bytes"] > 16 * MIB)
        sever(world)
        begin = time.monotonic()
        paused = world.destination.wait_import("vm", lambda i: i["state"] == "paused")
        noticed = time.monotonic() - begin
        expect(paused["text"], "paused, and no reason told")
        destination.wait_event("paused")
        time.sleep(max(0, SECONDS - noticed))
        before = world.destination.imported("vm")
        expect(before["state"] == "paused", before["state"])
        mend(world)
        world.destination.wait_import("vm", lambda i: i["state"] in ("running", "complete",
                                                                     "released"))
        world.proxy.undisturbed()
        arrived, left = world.complete(source, destination)
        expect(arrived["reconnects"] >= 1, arrived)
        expect(fetched(arrived["pages"]) == source.populated, arrived["pages"])
        expect(arrived["pages"]["eexist"] == 0, arrived["pages"])
        lost = left["pages_read"] - source.populated
        expect(0 <= lost <= LOST_MAX, f"{lost} pages were read twice")
        return f"noticed after {noticed:.1f} s ({paused['text']}), {lost} replies lost"


def cut():
    """Connections are closed, and new ones too."""
    return _severed(lambda world: world.proxy.cut(), lambda world: world.proxy.mend())


def cut_anonymous():
    """The same with anonymous memory."""
    return _severed(lambda world: world.proxy.cut(), lambda world: world.proxy.mend(),
                    backing="anonymous")


def silent():
    """Nothing passes and nobody is told; later what was held back comes after all."""
    return _severed(lambda world: world.proxy.hold(), lambda world: world.proxy.release())


def flapping():
    """Cut again and again."""
    with World(proxied=True) as world:
        world.proxy.slow(RATE)
        source, destination = world.vms(mem=48, fill=48, threads=4)
        world.move(source, destination)
        for part in range(1, 6):
            world.destination.wait_import("vm", lambda i, at=part: i["present_bytes"] > at * 6 * MIB)
            world.proxy.cut()
            time.sleep(0.1 * part)
            world.proxy.mend()
        world.proxy.undisturbed()
        arrived, _ = world.complete(source, destination)
        expect(fetched(arrived["pages"]) == source.populated, arrived["pages"])
        return f"{arrived['reconnects']} reconnects"


RELEASED = Peer.HEADER.pack(0, Peer.RELEASED, 0, 0, 0, 0)[:8]


def _lose_released(direction):
    """A migration whose first RELEASED that way, or its answer, is lost with its connection."""
    with World(proxied=True) as world:
        source, destination = world.vms()
        world.move(source, destination)
        lost = []

        def lose(channel, way, data):
            if channel.kind == "control" and way == direction and RELEASED in data and not lost:
                lost.append(way)
                channel.close()
                return b""
            return data

        world.proxy.filter = lose
        destination.wait_event("released")
        source.wait_event("done")
        world.destination.wait("end of the link", lambda: not has_thread(world.destination, "link"),
                               timeout=20)
        expect(lost, "nothing was lost")
        destination.verified(1)
        found = world.destination.imported("vm")
        expect(found["state"] == "released", found["state"])
        source.quit()


def released_lost():
    """The source hears of the release when the link is back; its client is told."""
    return _lose_released("up")


def release_acknowledgement_lost():
    """A source that knows nothing of it any more has heard."""
    return _lose_released("down")


def client_lets_go_unheard():
    """The client lets go of its memory and cannot say so; its next HELLO says it."""
    with World(proxied=True) as world:
        world.proxy.slow(RATE)
        source, destination = world.vms(mem=16, fill=16)
        world.move(source, destination)
        world.destination.wait_import("vm", lambda i: i["present_bytes"] > 4 * MIB)
        with socket.socket(fileno=duplicate_fd(destination, "socket:")) as end:
            destination.process.send_signal(signal.SIGSTOP)
            world.proxy.undisturbed()
            world.destination.wait_import("vm", lambda i: i["state"] == "complete")
            time.sleep(0.5)  # RELEASE waits in the client's socket by then
            end.shutdown(socket.SHUT_WR)
            destination.process.send_signal(signal.SIGCONT)
        source.wait_event("done")
        world.destination.wait_import("vm", lambda i: i["state"] == "released")
        destination.verified(1)
