# SPDX-License-Identifier: GPL-2.0-or-later
"""How much work a switchover costs the guest.

The guest's steady rate before it is what it could have done all along; what it did less than that
is expressed as milliseconds of full work lost.
"""

import statistics
from dataclasses import dataclass


class TooFewTicks(Exception):
    """The guest did not run long enough before or after the switchover."""


@dataclass(frozen=True)
class Loss:
    """Milliseconds of work lost.

    `after_resume_ms` is about the destination alone; `total_ms` begins up to a tick before STOP and
    so holds the downtime, and what the source lost in its last moments.
    """

    pages_per_ms: float
    window_ms: float
    total_ms: float
    after_resume_ms: float


def _points(log):
    """(time, filled pages verified since the start) of every tick.

    Zero pages are visited in proportion, or only after the switchover: they do not count.
    """
    offset = log.clock_offset()
    return sorted((tick["t_us"] / 1e6 + offset, tick["pages"]) for tick in log.records("TICK"))


def steady_rate(log, until, seconds=2.0):
    """Median of pages per second between ticks in the last seconds before a time."""
    points = [point for point in _points(log) if until - seconds <= point[0] <= until]
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(points, points[1:]) if b[0] > a[0]]
    if len(rates) < 5:
        raise TooFewTicks(f"{len(rates)} ticks before the switchover")
    return statistics.median(rates)


def _work_at(points, when):
    for (t0, work0), (t1, work1) in zip(points, points[1:]):
        if t0 <= when <= t1:
            return work0 + (work1 - work0) * (when - t0) / (t1 - t0)
    raise TooFewTicks("no tick after the window")


def work_lost(source, destination, stop, resume, window, steady_until=None):
    """Work lost in the `window` seconds after RESUME, and from STOP on.

    source, destination  the two GuestLogs
    steady_until         end of the undisturbed time, if the migration began well before STOP
    """
    rate = steady_rate(source, steady_until or stop)
    before = [point for point in _points(source) if point[0] <= stop]
    # The counters migrate with the guest, which ticks as soon as it notices where it is: what that
    # tick holds is what was done until STOP, and the few pages it took to notice.
    after = _points(destination)
    if not before or not after:
        raise TooFewTicks("no tick on one of the hosts")
    end = resume + window
    work_end = _work_at([(resume, after[0][1]), *after[1:]], end)
    total = (end - before[-1][0]) - (work_end - before[-1][1]) / rate
    after_resume = window - (work_end - after[0][1]) / rate
    return Loss(pages_per_ms=rate / 1e3, window_ms=window * 1e3, total_ms=total * 1e3,
                after_resume_ms=after_resume * 1e3)
