# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of all kinds arrive with every word in place."""

import dataclasses
import time

from harness import host
from harness.case import capabilities, pair, restored, small, verified
from harness.postcopyd import expect

SAVED = "saved"


def arrives(spec, source_options=None, destination_options=None):
    """Migrates a guest and lets it look at its memory."""
    with pair() as both:
        source = both.source_vm(spec, **(source_options or {}))
        destination = both.destination_vm(source, **(destination_options or {}))
        before = capabilities(source)
        result = both.migrate(source, destination).succeed()
        expect(source.status() == "postmigrate", f"the source is {source.status()}")
        expect(destination.status() == "running", f"the destination is {destination.status()}")
        restored(before, source, destination)
        found = both.destination.imported("vm")
        pages = found["pages"]
        expect(found["missing_bytes"] == 0 and not pages["poisoned"] and not pages["eexist"],
               f"import {found}")
        return (f"{verified(destination)}, {result['faults']} faults, "
                f"downtime {result['downtime_ms']:.0f} ms")


def memfd():
    """RAM in a memfd."""
    return arrives(small())


def file():
    """RAM in a shared file on a tmpfs."""
    return arrives(small(backend="file"))


def hugetlb():
    """RAM in 2 MiB pages."""
    spec = small(backend="hugetlb")
    with host.hugepages(2 * spec.mem_mb):
        return arrives(spec)


def prealloc():
    """RAM that both QEMUs populate at start."""
    return arrives(small(prealloc=True))


def vcpus_1():
    """One vCPU."""
    return arrives(small(vcpus=1))


def vcpus_4():
    """Four vCPUs."""
    return arrives(small(vcpus=4))


def numa_swapped():
    """Two backends of one size, given in the other order at the destination."""
    spec = small(numa=(("ram0", 160), ("ram1", 160)), fill_mb=192)
    return arrives(spec, {"object_order": ("ram0", "ram1")}, {"object_order": ("ram1", "ram0")})


def tcg():
    """Emulated vCPUs fault like real ones."""
    return arrives(small(accel=host.TCG, fill_mb=64))


def paused():
    """A guest that stood still stands still over there, until it is continued."""
    with pair() as both:
        source = both.source_vm(small())
        source.wait_passes(1)
        source.qmp.cmd("stop")
        destination = both.destination_vm(source)
        both.migrate(source, destination).succeed()
        expect(destination.status() == "paused", f"the destination is {destination.status()}")
        destination.qmp.cmd("cont")
        return verified(destination)


def two_vms():
    """Two guests move at once between the same two daemons."""
    with pair() as both:
        names = ("one", "two")
        sources = [both.source_vm(small(vcpus=1, seed=number), name)
                   for number, name in enumerate(names, 1)]
        destinations = [both.destination_vm(source, vm=name)
                        for source, name in zip(sources, names)]
        migrations = [both.migrate(source, destination, name) for source, destination, name
                      in zip(sources, destinations, names)]
        for migration in migrations:
            migration.succeed()
        return ", ".join(verified(destination) for destination in destinations)


def saved_afterwards():
    """A plain migration to a file holds the RAM again: x-ignore-shared is off."""
    with pair() as both:
        spec = dataclasses.replace(small(), write=False)
        source = both.source_vm(spec)
        destination = both.destination_vm(source)
        both.migrate(source, destination).succeed()
        verified(destination, 1)
        path = both.folder / SAVED
        destination.qmp.capabilities(events=True)
        destination.qmp.cmd("stop")
        destination.qmp.cmd("migrate-set-parameters", max_bandwidth=4 << 30)
        begin = time.time()
        destination.qmp.cmd("migrate", uri=f"exec:cat >{path}")
        destination.qmp.wait_migration("completed", since=begin)
        size = path.stat().st_size >> 20
        expect(size >= spec.fill_mb, f"only {size} MiB were saved")
        return f"{size} MiB saved"


def twice():
    """A guest that arrived leaves again."""
    with pair() as both:
        spec = small()
        first = both.source_vm(spec)
        second = both.destination_vm(first)
        both.migrate(first, second).succeed()
        verified(second, 1)
        first.quit()
        third = both.client(both.source, spec, "vm-third", incoming="defer", paused=True,
                            marker=0x12, uuid=first.uuid)
        with_b = both.migrate(second, third, daemon=both.destination)
        with_b.succeed()
        third.wait_passes(1, epoch=2)
        expect(third.bad() == 0, f"{third.bad()} bad words")
        return f"{third.log.last('TICK')['passes']} passes on the third host"
