# SPDX-License-Identifier: GPL-2.0-or-later
"""The preloaded client: what it refuses, and that it otherwise stays out of the way."""

import time
from pathlib import Path

from harness import host
from harness.case import (capabilities, mentions, no_bad_word, pair, runs_on, small,
                          verified)
from harness.postcopyd import expect, preload
from harness.vm import Vm


def private_refused():
    """Anonymous private RAM cannot be served, and the message says what can."""
    with pair() as both:
        source = both.source_vm(small(backend="anon"))
        destination = both.destination_vm(source)
        status, message = both.migrate(source, destination).fail(30)
        expect(status == 1, f"exit {status}: {message}")
        mentions(message, "private", "memory-backend-memfd")
        runs_on(source)
        return message


def unknown_vm():
    """A VM that is not there."""
    with pair() as both:
        source = both.source_vm(small())
        destination = both.destination_vm(source)
        status, message = both.migrate(source, destination, "other").fail(30)
        expect(status == 1, f"exit {status}: {message}")
        mentions(message, "other")
        runs_on(source)
        return message


def transport_chosen():
    """RDMA is insisted on where there is none: refused, both QEMUs as they were; then the same pair goes by TCP."""
    if any(Path("/sys/class/infiniband").glob("*")):
        raise host.Unavailable("this host has RDMA devices")
    for settings, words in (({}, ("off at the source", "[rdma] networks")),
                            ({"rdma": {"networks": "127.0.0.1"}}, ("source has no RDMA device",))):
        with pair(source=settings) as both:
            source = both.source_vm(small())
            destination = both.destination_vm(source)
            before = capabilities(source), capabilities(destination)
            status, message = both.migrate(source, destination,
                                           options=("--transport", "rdma")).fail(30)
            expect(status == 1, f"exit {status}: {message}")
            mentions(message, "RDMA", "--transport tcp", *words)
            expect((capabilities(source), capabilities(destination)) == before, "not undone")
            both.migrate(source, destination, options=("--transport", "tcp")).succeed()
            verified(destination)
            arrived = both.destination.imported("vm")["transport"]
            expect((arrived["kind"], arrived["wanted"], arrived["reason"]) == ("tcp", "tcp", ""),
                   arrived)
    return message


def without_daemon():
    """With no daemon, or no socket named, QEMU runs as ever and says nothing."""
    with host.workdir() as folder:
        for name, environment in (("none", {}), ("gone", {"POSTCOPY_SOCKET": f"{folder}/none"})):
            with Vm(small(), folder, name, preload=preload(), env=environment) as guest:
                guest.wait_passes(2)
                no_bad_word(guest)
                expect(guest.stderr() == "", f"QEMU said: {guest.stderr()}")
                guest.qmp.cmd("stop")
                guest.qmp.cmd("cont")
                guest.wait_ticks(2)
    return "silent"


def incoming_without_us():
    """A client whose guest came by QEMU's own migration is a source like any other."""
    with pair() as both:
        spec = small(write=False)
        old = both.source_vm(spec)
        new = both.client(both.destination, spec, "vm-new", incoming="defer", marker=0x11,
                          uuid=old.uuid)
        path = f"{both.folder}/plain"
        for guest in (old, new):
            guest.qmp.capabilities(events=True)
        new.qmp.cmd("migrate-incoming", uri=f"unix:{path}")
        old.qmp.cmd("migrate-set-parameters", max_bandwidth=4 << 30, downtime_limit=2000)
        old.qmp.cmd("migrate", uri=f"unix:{path}")
        old.qmp.wait_migration("completed")
        new.wait_passes(1, epoch=1)
        no_bad_word(new)
        old.quit()
        third = both.client(both.source, spec, "vm-third", incoming="defer", paused=True,
                            marker=0x12, uuid=old.uuid)
        time.sleep(2)
        both.migrate(new, third, daemon=both.destination).succeed()
        third.wait_passes(1, epoch=2)
        no_bad_word(third)
        return "left again"
