# SPDX-License-Identifier: GPL-2.0-or-later
"""What dies while memory is on its way comes back, and the guest's memory is right."""

import time

from harness.case import no_bad_word, proxied, runs_on, small, verified
from harness.postcopyd import expect

RATE = 24 << 20  # bytes a second: 128 MiB take some seconds
LINK_DOWN = 5.0


def slowed(proxy):
    """Makes sure that there is a middle of the stream."""
    for kind in ("bulk", "urgent"):
        proxy.limit(kind, RATE)


def share_missing(found):
    """Of what is populated; 1 while that is not known."""
    return found["missing_bytes"] / found["populated_bytes"] if found["populated_bytes"] else 1.0


def vcpus_of(found):
    """Threads that an import's figures name as vCPUs."""
    return [vcpu["tid"] for vcpu in found["vcpus"] if vcpu["vcpu"] >= 0]


def daemon_killed(lowest, highest, options=None):
    """The destination's daemon is killed when so much is missing, and started again."""
    with proxied() as (both, proxy):
        slowed(proxy)
        source = both.source_vm(small(**(options or {})))
        destination = both.destination_vm(source)
        migration = both.migrate(source, destination)
        migration.wait_phase("resumed")
        seen = both.destination.wait_import(
            "vm", lambda i: i["populated_bytes"] and share_missing(i) <= highest, 60, 0.005)
        expect(share_missing(seen) > lowest, f"too late: {share_missing(seen):.1%} missing")
        both.destination.kill()
        time.sleep(0.3)
        both.destination.start()
        adopted = both.destination.wait_import("vm", lambda i: True, 10)
        expect(adopted["adopted"], f"not adopted: {adopted}")
        vcpus = destination.vcpu_threads()
        session = both.destination.wait_session("vm")
        expect(vcpus_of(seen) == vcpus_of(adopted) == vcpus and session["vcpus"] == len(vcpus),
               f"vCPUs {vcpus}, told {vcpus_of(seen)} and then {vcpus_of(adopted)}, session {session}")
        proxy.undisturbed()
        migration.succeed()
        passes = verified(destination)
        return f"killed with {share_missing(seen):.1%} missing, {passes}"


def daemon_killed_early():
    """Killed when next to nothing is there."""
    return daemon_killed(0.8, 0.99)


def daemon_killed_midway():
    """Killed in the middle; which threads are vCPUs only the migration's driver has told."""
    return daemon_killed(0.2, 0.6, {"named_threads": False})


def daemon_killed_late():
    """Killed in the last 5 %."""
    return daemon_killed(0.0, 0.05)


def daemon_killed_armed():
    """Killed while it is armed, before the gate: one side runs, and its memory is right."""
    with proxied() as (both, _):
        source = both.source_vm(small())
        destination = both.destination_vm(source)

        def restart(event):
            if event.get("phase") == "prepared":
                both.destination.restart()

        migration = both.migrate(source, destination, on_event=restart, timeout_s=10)
        if migration.wait() == 0:
            return f"migrated, {verified(destination)}"
        runs_on(source)
        expect(not destination.alive() or destination.status() != "running", "both run")
        destination.quit()
        again = both.client(both.destination, source.spec, "vm-again", incoming="defer",
                            paused=True, marker=0x11, uuid=source.uuid)
        both.migrate(source, again).succeed()
        again.wait_passes(1, epoch=1)
        no_bad_word(again)
        return f"undone ({migration.stderr.strip()}), and migrated afterwards"


def daemon_killed_thrice():
    """Killed again and again."""
    with proxied() as (both, proxy):
        slowed(proxy)
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        migration = both.migrate(source, destination)
        migration.wait_phase("resumed")
        for share in (0.8, 0.5, 0.2):
            both.destination.wait_import(
                "vm", lambda i, share=share: i["populated_bytes"] and share_missing(i) <= share,
                60, 0.005)
            both.destination.restart()
        migration.succeed()
        return verified(destination)


def link_cut():
    """The link is down for some seconds: paused, and resumed by itself."""
    with proxied() as (both, proxy):
        slowed(proxy)
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        migration = both.migrate(source, destination)
        migration.wait_phase("resumed")
        both.destination.wait_import(
            "vm", lambda i: i["populated_bytes"] and share_missing(i) <= 0.6, 60)
        proxy.cut()
        down = time.monotonic()
        both.destination.wait_import("vm", lambda i: i["state"] == "paused", 5)
        source.kill()
        time.sleep(max(0.0, down + LINK_DOWN - time.monotonic()))
        still = both.destination.imported("vm")
        expect(still["state"] == "paused" and share_missing(still) > 0.1, f"import {still}")
        proxy.undisturbed()
        proxy.mend()
        migration.succeed()
        expect("paused" in migration.phases(), f"phases {migration.phases()}")
        found = both.destination.imported("vm")
        expect(found["reconnects"] >= 1, f"import {found}")
        return f"{share_missing(still):.0%} missing while cut, {verified(destination)}"


def source_daemon_killed():
    """The source's daemon is killed midway and started again: its export comes back."""
    with proxied() as (both, proxy):
        slowed(proxy)
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        migration = both.migrate(source, destination)
        migration.wait_phase("resumed")
        seen = both.destination.wait_import(
            "vm", lambda i: i["populated_bytes"] and share_missing(i) <= 0.6, 60)
        both.source.kill()
        both.destination.wait_import("vm", lambda i: i["state"] == "paused", 5)
        both.source.start()
        proxy.undisturbed()
        migration.succeed()
        return f"killed with {share_missing(seen):.1%} missing, {verified(destination)}"
