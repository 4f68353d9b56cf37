# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own post-copy over TCP loopback: the peer to measure against."""

import time
from dataclasses import asdict, dataclass, field

from . import measure
from .vm import Vm, VmError

# Pre-copy under TCG loses writes in some versions of QEMU, and costs time that is not post-copy's:
# next to nothing is sent before the switch.
PRECOPY_BANDWIDTH = 1 << 16

# Seconds over which work is counted after all memory has arrived.  Longer would mistake a slower
# steady state for lost work: memory that came page by page lacks the source's huge pages.
TAIL = 1.0


@dataclass
class Timeline:
    """When it happened."""

    begin: float = 0.0      # the migrate command
    stop: float = 0.0       # STOP on the source
    resume: float = 0.0     # RESUME on the destination
    completed: float = 0.0  # all memory has arrived

    @property
    def downtime_ms(self):
        """STOP to RESUME by QEMU's event timestamps."""
        return (self.resume - self.stop) * 1e3

    @property
    def total_ms(self):
        """The migrate command until all memory has arrived."""
        return (self.completed - self.begin) * 1e3


@dataclass
class Outcome:
    """All that was measured of one migration."""

    downtime_ms: float
    total_ms: float
    memory_ms: float        # RESUME until all memory has arrived
    first_touch: dict       # Histogram.summary()
    waited: dict            # the same of those that had to wait for their page
    lost_ms: float          # work lost until the window's end, downtime included
    lost_after_resume_ms: float
    window_ms: float
    pages_per_ms: float     # the guest's steady rate before
    pages_per_ms_after: float
    bad: int
    passes: int
    bad_records: list = field(default_factory=list)

    def as_dict(self):
        """For JSON."""
        return asdict(self)


def listen(destination, uri="tcp:127.0.0.1:0"):
    """Begins to listen on a free port; the uri to migrate to."""
    destination.qmp.cmd("migrate-incoming", uri=uri)
    address = destination.qmp.cmd("query-migrate")["socket-address"][0]
    return f"tcp:{address['host']}:{address['port']}"


def migrate(source, destination, preempt=False, timeout=120.0):
    """Post-copy migrates at once; returns the Timeline when all memory has arrived."""
    capabilities = {"events": True, "postcopy_ram": True}
    if preempt:
        capabilities["postcopy_preempt"] = True
    for vm in (source, destination):
        vm.qmp.capabilities(**capabilities)
    source.qmp.cmd("migrate-set-parameters", max_bandwidth=PRECOPY_BANDWIDTH,
                   max_postcopy_bandwidth=0)
    uri = listen(destination)
    times = Timeline(begin=time.time())
    source.qmp.cmd("migrate", uri=uri)
    source.qmp.wait_migration("active", timeout=timeout, since=times.begin)
    source.qmp.cmd("migrate-start-postcopy")
    done = source.qmp.wait_migration("completed", "failed", "postcopy-paused", timeout=timeout,
                                     since=times.begin)
    if done.data["status"] != "completed":
        raise VmError(f"source: {done.data['status']}; {source.stderr()[-300:]}; "
                      f"destination: {destination.stderr()[-300:]}")
    end = destination.qmp.wait_migration("completed", "failed", timeout=timeout)
    if end.data["status"] != "completed":
        raise VmError(f"destination: {end.data['status']}; {destination.stderr()[-300:]}")
    times.completed = end.time
    times.stop = source.qmp.wait_event("STOP", timeout=timeout, since=times.begin).time
    times.resume = destination.qmp.wait_event("RESUME", timeout=timeout).time
    return times


def outcome(source, destination, times, passes=2, window=None, timeout=120.0):
    """Waits for the figures of a migration, QEMU's own or another, whose Timeline is known.

    Lost work is counted for `window` seconds after RESUME; None: until TAIL after the last page.
    """
    if window is None:
        window = times.completed - times.resume + TAIL
    destination.wait_passes(passes, epoch=1, timeout=timeout)
    touches = destination.wait_first_touches(epoch=1, timeout=timeout)
    time.sleep(max(0.0, times.resume + window + 0.5 - time.time()))
    destination.wait_ticks(2)
    loss = measure.work_lost(source.log, destination.log, times.stop, times.resume, window,
                             steady_until=times.begin)
    return Outcome(
        downtime_ms=times.downtime_ms, total_ms=times.total_ms,
        memory_ms=(times.completed - times.resume) * 1e3,
        first_touch=touches.summary(), waited=touches.waited().summary(),
        lost_ms=loss.total_ms, lost_after_resume_ms=loss.after_resume_ms,
        window_ms=loss.window_ms, pages_per_ms=loss.pages_per_ms,
        pages_per_ms_after=measure.steady_rate(destination.log, time.time(), TAIL) / 1e3,
        bad=destination.bad(),
        passes=destination.log.last("TICK")["passes"],
        bad_records=[record.fields for record in destination.bad_records()])


def run(spec, folder, preempt=False, passes=2, window=None, steady=2.5, timeout=120.0):
    """Boots, fills, migrates and measures once."""
    with Vm(spec, folder, "src") as source:
        source.wait_ready(timeout)
        source.wait_passes(1, timeout=timeout)
        with source.destination(name="dst") as destination:
            time.sleep(steady)
            times = migrate(source, destination, preempt, timeout)
            return outcome(source, destination, times, passes, window, timeout)
