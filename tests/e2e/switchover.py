# SPDX-License-Identifier: GPL-2.0-or-later
"""A switchover that fails leaves exactly one guest running."""

import os
import signal
import time

from harness.case import (capabilities, mentions, no_bad_word, pair, proxied, restored, runs_on,
                          small, verified)
from harness.postcopyd import DaemonError, expect
from harness.proxy import DOWN, UP

INTERRUPTED = 130


def undone(both, source, destination, migration, *words):
    """Waits for a failure after which nothing has changed for the source."""
    status, message = migration.fail(60)
    expect(status == 1, f"exit {status}: {message}")
    mentions(message, *words)
    runs_on(source)
    expect(not both.source.stats("vm")["exports"]
           or both.source.exported("vm")["state"] in ("cancelled", "fenced"), "the export is open")
    return message


def moves_after_all(both, source):
    """After a failure undone the guest can still be migrated."""
    again = both.client(both.destination, source.spec, "vm-again", incoming="defer", paused=True,
                        marker=0x11, uuid=source.uuid)
    both.migrate(source, again).succeed()
    again.wait_passes(1, epoch=1)
    no_bad_word(again)


def gone(vm):
    """Its guest is dead when its monitor hangs up; the process takes a moment longer."""
    deadline = time.monotonic() + 5
    while vm.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    expect(not vm.alive(), "the destination's QEMU lives")


def daemon_down():
    """There is no daemon at the destination."""
    with pair() as both:
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        before = capabilities(source)
        both.destination.stop()
        message = undone(both, source, destination, both.migrate(source, destination),
                         both.destination.address)
        restored(before, source, destination)
        both.destination.start()
        both.destination.wait_session("vm")
        both.migrate(source, destination).succeed()
        destination.wait_passes(1, epoch=1)
        no_bad_word(destination)
        return message


def memory_differs():
    """The destination has more memory."""
    with pair() as both:
        source = both.source_vm(small())
        destination = both.destination_vm(source, small(mem_mb=384))
        before = capabilities(source)
        message = undone(both, source, destination, both.migrate(source, destination), "ram0")
        restored(before, source, destination)
        return message


def no_preload():
    """The destination's QEMU is no client of its daemon."""
    with pair() as both:
        source = both.source_vm(small())
        destination = both.add(source.destination(paused=True))
        before = capabilities(source)
        message = undone(both, source, destination, both.migrate(source, destination), "vm")
        restored(before, source, destination)
        return message


def destination_dies():
    """The destination's QEMU is killed once it is armed, then during the switchover."""
    with pair() as both:
        source = both.source_vm(small())
        before = capabilities(source)
        messages = []
        for phase in ("prepared", "switchover"):
            destination = both.client(both.destination, source.spec, f"vm-{phase}",
                                      incoming="defer", paused=True, marker=0x11,
                                      uuid=source.uuid)

            def kill(event, phase=phase, pid=destination.pid):
                if event.get("phase") == phase:
                    os.kill(pid, signal.SIGKILL)

            messages.append(undone(both, source, destination,
                                   both.migrate(source, destination, on_event=kill),
                                   "destination"))
            restored(before, source)
            destination.kill()
        moves_after_all(both, source)
        return "; ".join(messages)


def source_refuses():
    """The source's QEMU has something that cannot be migrated."""
    with pair() as both:
        folder = both.folder / "fat"
        folder.mkdir()
        source = both.source_vm(small(), extra=("-drive", f"if=none,id=fat,file=fat:rw:{folder}"))
        destination = both.destination_vm(source)
        before = capabilities(source)
        message = undone(both, source, destination, both.migrate(source, destination), "source")
        restored(before, source, destination)
        return message


def interrupted():
    """Ctrl-C while the destination is being prepared."""
    with proxied() as (both, proxy):
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        before = capabilities(source)
        proxy.limit("control", 100)
        migration = both.migrate(source, destination)
        migration.wait_phase("checked")
        time.sleep(0.5)
        migration.interrupt()
        status, message = migration.fail(30)
        expect(status == INTERRUPTED, f"exit {status}: {message}")
        mentions(message, "interrupted")
        runs_on(source)
        restored(before, source, destination)
        proxy.undisturbed()
        destination.quit()
        moves_after_all(both, source)
        return message


def return_path_cut():
    """The source needs no word from the destination, even if its operator had wanted one."""
    with proxied() as (both, proxy):
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        source.qmp.execute("migrate-set-capabilities", {"capabilities": [
            {"capability": "return-path", "state": True},
            {"capability": "pause-before-switchover", "state": True}]})
        before = capabilities(source)

        def cut(event):
            if event.get("phase") == "switchover":
                proxy.drop("relay", UP, proxy.total("relay", UP))

        both.migrate(source, destination, on_event=cut, timeout_s=10).succeed()
        expect(proxy.dropped == 0, f"{proxy.dropped} bytes went back")
        expect(source.status() == "postmigrate", f"the source is {source.status()}")
        verified(destination)
        restored(before, source)
        return "nothing went back"


def stream_cut():
    """The link dies in the middle of the device state."""
    with proxied() as (both, proxy):
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        before = capabilities(source)

        def cut(event):
            if event.get("phase") == "switchover":
                proxy.drop("relay", DOWN, proxy.total("relay", DOWN) + 20000)

        migration = both.migrate(source, destination, on_event=cut, timeout_s=4)
        status, message = migration.fail(60)
        expect(proxy.dropped > 0, "nothing was dropped")
        expect(status == 1, f"exit {status}: {message}")
        gone(destination)
        runs_on(source)
        restored(before, source)
        return message


def source_runs_again():
    """`cont` on the source afterwards: the destination gets nothing any more."""
    with proxied() as (both, proxy):
        proxy.limit("bulk", 10 << 20)
        proxy.limit("urgent", 10 << 20)
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        migration = both.migrate(source, destination)
        migration.wait_phase("resumed")
        destination.wait_ticks(2)
        source.qmp.cmd("cont")
        both.source.wait("fence", lambda: both.source.exported("vm")["fenced"], 5)
        both.destination.wait_import("vm", lambda i: i["state"] == "fenced", 5)
        status, message = migration.fail(30)
        mentions(message, "fenced")
        time.sleep(0.2)
        first = both.destination.imported("vm")
        time.sleep(1)
        second = both.destination.imported("vm")
        expect(first["missing_bytes"] > 0, "it was complete before")
        # (What the slow link still held of earlier replies may arrive; none of it is placed.)
        expect(first["present_bytes"] == second["present_bytes"]
               and all(first["pages"][kind] == second["pages"][kind]
                       for kind in ("copied", "zero", "hole")), "it is still fed")
        no_bad_word(destination)
        return f"exit {status}: {message}"


def source_gone_late():
    """postcopyctl is killed once the guest runs: its memory comes all the same."""
    with proxied() as (both, proxy):
        proxy.limit("bulk", 50 << 20)
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        migration = both.migrate(source, destination)
        migration.wait_phase("resumed")
        migration.kill()
        source.kill()
        both.destination.wait_import("vm", lambda i: i["state"] == "released", 30)
        destination.wait_passes(2, epoch=1)
        no_bad_word(destination)
        return "released"


def driver_dies():
    """postcopyctl is killed before the gate opens: everything is undone by the daemons."""
    with proxied() as (both, proxy):
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        proxy.limit("control", 100)
        migration = both.migrate(source, destination)
        migration.wait_phase("checked")
        time.sleep(0.5)
        migration.kill()
        proxy.undisturbed()
        runs_on(source)

        def closed():
            exports = both.source.stats("vm")["exports"]
            return not exports or exports[0]["state"] == "cancelled"

        both.source.wait("end of the export", closed, 10)
        destination.quit()
        try:
            moves_after_all(both, source)
        except DaemonError as error:
            raise DaemonError(f"no migration afterwards: {error}") from error
        return "undone"
