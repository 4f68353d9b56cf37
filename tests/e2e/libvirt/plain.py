# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's own post-copy, without us: what we must never be worse than, and a proof of the hosts."""

from harness import host
from harness.postcopyd import expect
from harness.vm import Spec

from .domains import Domain
from .hosts import USER, pair

RATE = 48  # MiB/s
SYSCTL = host.Path("/proc/sys/vm/unprivileged_userfaultfd")


def small(**changes):
    """A guest that is quick to fill, with memory that it never filled."""
    return Spec(**{"mem_mb": 384, "fill_mb": 96, "zero_mb": 32, "zero_epoch": 1, "vcpus": 2,
                   **changes})


def moves(domain, epoch):
    """One migration of a running domain by libvirt alone; what there is to say about it."""
    with domain.migrate("--persistent", postcopy=RATE, switch=True) as migration:
        migration.wait_states(("paused", "post-copy"), ("running", "post-copy"))
        took = migration.succeed()
    job = migration.source.host.job(domain.name, completed=True)
    expect(job.get("Job type") == "Completed" and job.get("Operation") == "Outgoing migration"
           and int(job.get("Postcopy requests", 0)) > 0, f"job {job}")
    least = 0.8 * domain.spec.fill_mb / RATE
    expect(took > least, f"{domain.spec.fill_mb} MiB took {took:.1f} s at {RATE} MiB/s")
    return (f"{took:.1f} s, {job['Postcopy requests']} requests, {domain.verified(epoch)}")


def arrives(**changes):
    """A guest that runs in root's QEMU moves."""
    with pair() as both, Domain(both, small(**changes)) as domain:
        domain.start()
        domain.here.wait_passes(1)
        return moves(domain, 1)


def anon_root():
    """Ordinary memory."""
    return arrives(backend="anon")


def memfd_root():
    """Shared memory, there and back."""
    with pair() as both, Domain(both, small()) as domain:
        domain.start()
        domain.here.wait_passes(1)
        there = moves(domain, 1)
        return f"{there}; back: {moves(domain, 2)}"


def refused_to_users():
    """A QEMU that is not root's may not catch faults: libvirt refuses, and the guest runs on.

    Where a host allows it to everyone there is nothing to refuse.
    """
    if not SYSCTL.exists() or SYSCTL.read_text().strip() != "0":
        raise host.Unavailable(f"{SYSCTL} is not 0")
    with pair(user=USER) as both, Domain(both, small()) as domain:
        domain.start()
        with domain.migrate() as migration:
            status = migration.wait()
            expect(status == 1 and "Postcopy is not supported" in migration.output,
                   f"virsh: exit {status}: {migration.output.strip()}")
            states = migration.states()
            expect(states == [("running", "migration canceled"), ("gone", "")]
                   or states == [("running", "booted"), ("gone", "")], f"states {states}")
        domain.verified(epoch=0)
        return migration.output.strip()
