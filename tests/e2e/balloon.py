# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest gives memory back to the host while it arrives, and takes it again."""

import contextlib
import time
from pathlib import Path

from harness.case import no_bad_word, proxied
from harness.linux import MIB, Balloon, LinuxSpec, allocated, longest_gap
from harness.postcopyd import expect

RATE = 20 << 20   # bytes a second: hundreds of MiB take as long as the balloon needs
SLOW = 2 << 20    # what is not asked for then comes only after the balloon, however long that takes
TAKE = 128 << 20  # what the balloon takes; more than was never touched
SLACK = 8 << 20
KNOWN = 64 << 20  # less than what the guest takes for a balloon that was there
DEAD_SECONDS = 3.0
PATIENCE = 30.0  # a guest that is translated has little of a busy host
STILL = 5.0       # a guest that makes no tick for so long hangs


@contextlib.contextmanager
def arriving(rates=None):
    """(the daemons, the proxy, the migration, the destination) when the guest just runs there."""
    with proxied() as (both, proxy):
        for kind, rate in (rates or {"bulk": RATE, "urgent": RATE}).items():
            proxy.limit(kind, rate)
        source = both.source_vm(LinuxSpec())
        source.wait_passes(1)
        destination = both.destination_vm(source)
        migration = both.migrate(source, destination)
        migration.wait_phase("resumed")
        found = both.destination.wait_import("vm", lambda i: i["populated_bytes"], 60, 0.005)
        expect(found["missing_bytes"] > TAKE, f"too late: {found}")
        yield both, proxy, migration, destination


def missing(both):
    """Bytes that are still to come."""
    return both.destination.imported("vm")["missing_bytes"]


def whole(destination):
    """The guest has all its memory again, has filled it, and every word it has is right."""
    refilled = destination.wait_record("TICK", lambda tick: tick["refilled"])
    destination.wait_passes(refilled["passes"] + 2)
    no_bad_word(destination)
    last = destination.log.last("TICK")
    return f"{last['words'] >> 20} Mi words right"


def arrived(both, proxy, migration):
    """All is there; how many pages were given back meanwhile, as far as this daemon saw it."""
    proxy.undisturbed()
    migration.succeed()
    found = both.destination.wait_import("vm", lambda i: i["complete_ms"] > 0)
    pages = found["pages"]
    expect(not found["missing_bytes"] and not pages["poisoned"], f"import {found}")
    return pages["removed"]


def given_back(both, proxy, migration):
    """The same, and there were some."""
    removed = arrived(both, proxy, migration)
    expect(removed > 0, "no page was given back while it arrived")
    return removed


def holds_little(destination):
    """What the host holds for a guest whose balloon is full, and not more than that."""
    held = allocated(destination)
    limit = destination.spec.mem_mb * MIB - TAKE + SLACK
    expect(held <= limit, f"{held // MIB} MiB held, {limit // MIB} are the most")
    return held


def inflate_and_deflate():
    """The balloon takes memory that was there and memory that was missing, and gives it back."""
    with arriving({"bulk": SLOW, "urgent": RATE}) as (both, proxy, migration, destination):
        balloon = Balloon(destination)
        begun = time.time()
        slowest = balloon.take(TAKE)
        destination.wait_record("TICK", lambda tick: tick["taken"])
        left = missing(both)
        expect(left > 0, "all had arrived before the balloon had its part")
        balloon.take(0)
        removed = given_back(both, proxy, migration)
        text = whole(destination)
        gap = longest_gap(destination, begun)
        expect(gap < STILL, f"the guest stood still for {gap:.1f} s")
        return (f"{removed} pages given back, {left // MIB} MiB missing when inflated, {text}, "
                f"longest gap {gap:.2f} s, slowest answer {slowest:.2f} s")


def stays_inflated():
    """What the balloon took before memory was all there is not brought back by what arrives."""
    with arriving() as (both, proxy, migration, destination):
        balloon = Balloon(destination)
        balloon.take(TAKE)
        destination.wait_record("TICK", lambda tick: tick["taken"])
        removed = given_back(both, proxy, migration)
        held = holds_little(destination)
        destination.wait_ticks(5)
        no_bad_word(destination)
        balloon.take(0)
        return f"{removed} pages given back, {held // MIB} MiB held, {whole(destination)}"


def daemon_dead():
    """Inflated while no daemon lives: QEMU answers, and a successor goes on from there."""
    with arriving({"bulk": RATE // 2}) as (both, proxy, migration, destination):
        # What the guest works with is there, and what its kernel notes on the first pages to go:
        # it stands still for want of a page only when it has given those.
        tick = destination.wait_record("TICK")
        destination.wait_passes(tick["passes"] + 1)
        balloon = Balloon(destination)
        balloon.take(KNOWN)
        balloon.take(0)
        left = missing(both)
        expect(left > TAKE // 8, f"only {left // MIB} MiB were missing")
        both.destination.kill()
        balloon.aim(TAKE)
        slowest = answers(balloon, DEAD_SECONDS)
        deadline = time.monotonic() + PATIENCE
        while (blindly := balloon.taken()) <= KNOWN // 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        expect(blindly > KNOWN // 2, f"{blindly // MIB} MiB given back while no daemon lived"
               f"{', as a vCPU waits for a page' if waits_for_a_page(destination) else ''}")
        both.destination.start()
        found = both.destination.wait_import("vm", lambda i: True, 10)
        expect(found["adopted"], f"not adopted: {found}")
        proxy.undisturbed()
        balloon.take(TAKE)
        destination.wait_record("TICK", lambda tick: tick["taken"])
        arrived(both, proxy, migration)  # perhaps all of it was taken before this daemon came
        held = holds_little(destination)
        balloon.take(0)
        return (f"{blindly // MIB} MiB given back without a daemon, {left // MIB} MiB missing, "
                f"{held // MIB} MiB held then, slowest answer {slowest:.2f} s, "
                f"{whole(destination)}")


def waits_for_a_page(vm):
    """One of its threads, a vCPU's, is in a fault that nobody has answered."""
    for task in Path(f"/proc/{vm.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if (task / "wchan").read_text() == "handle_userfault":
                return True
    return False


def answers(balloon, seconds):
    """Asks QEMU all that time; how long its slowest answer took."""
    end = time.monotonic() + seconds
    slowest = 0.0
    while (asked := time.monotonic()) < end:
        balloon.taken()
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.02)
    return slowest
