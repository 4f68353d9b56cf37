# SPDX-License-Identifier: GPL-2.0-or-later
"""How long first touches of pages took: histograms as the test guest counts them."""

from dataclasses import dataclass, field


def octave_bounds(bucket):
    """Nanoseconds of a STALL record's bucket: [2^i, 2^(i+1))."""
    return (0 if bucket == 0 else 1 << bucket, 2 << bucket)


def fine_bounds(bucket):
    """Nanoseconds of a STALLFINE record's bucket: eight an octave from 8 ns on."""
    if bucket < 8:
        return (bucket, bucket + 1)
    shift = bucket // 8 - 1
    start = (bucket % 8 + 8) << shift
    return (start, start + (1 << shift))


# A touch that takes this long waited for its page; a hypervisor's own faults are shorter.  The guest
# draws the line at the next bucket's start, STALL_WAITED_NS.
WAITED_US = 20


@dataclass
class Histogram:
    """Counts by (start, end) in nanoseconds, with the exact sum and maximum where known."""

    counts: dict = field(default_factory=dict)
    sum_us: int = 0
    max_us: int = 0
    waited_sum_us: int = 0  # of those that waited

    @classmethod
    def from_octaves(cls, counts):
        """From a STALL record's hist."""
        return cls({octave_bounds(i): n for i, n in enumerate(counts) if n})

    @classmethod
    def from_fine(cls, counts):
        """From a STALLFINE record's hist."""
        return cls({fine_bounds(i): n for i, n in counts.items() if n})

    def add(self, other):
        """Merges another histogram of the same resolution into this one."""
        for bounds, n in other.counts.items():
            self.counts[bounds] = self.counts.get(bounds, 0) + n
        self.sum_us += other.sum_us
        self.waited_sum_us += other.waited_sum_us
        self.max_us = max(self.max_us, other.max_us)

    @property
    def n(self):
        """How many touches were timed."""
        return sum(self.counts.values())

    def percentile_ns(self, percent):
        """Interpolated within the bucket; the maximum is a bound."""
        rank, seen = self.n * percent / 100, 0
        for (start, end), n in sorted(self.counts.items()):
            if seen + n >= rank and n:
                value = start + (end - start) * (rank - seen) / n
                return min(value, self.max_us * 1000 + 999) if self.max_us else value
            seen += n
        return 0.0

    def waited(self):
        """The touches that waited for their page, with their exact sum."""
        counts = {bounds: n for bounds, n in self.counts.items() if bounds[0] >= WAITED_US * 1000}
        return Histogram(counts, self.waited_sum_us, self.max_us if counts else 0,
                         self.waited_sum_us)

    def summary(self):
        """The usual figures, in microseconds."""
        return {"n": self.n, "p50_us": round(self.percentile_ns(50) / 1000, 2),
                "p90_us": round(self.percentile_ns(90) / 1000, 2),
                "p99_us": round(self.percentile_ns(99) / 1000, 2),
                "p999_us": round(self.percentile_ns(99.9) / 1000, 2),
                "max_us": self.max_us, "sum_ms": round(self.sum_us / 1000, 1)}


def first_touches(log, epoch, pass_number=0, workers=None):
    """The merged histogram of one pass by all workers; finest resolution there is.

    None while a worker has not finished that pass.
    """
    which = {"epoch": epoch, "pass": pass_number}
    sums = {record["worker"]: record for record in log.records("STALLSUM", **which)}
    if not sums or workers is not None and len(sums) < workers:
        return None
    fine = {record["worker"]: record for record in log.records("STALLFINE", **which)}
    octaves = {record["worker"]: record for record in log.records("STALL", **which)}
    all_fine = set(fine) >= set(sums)
    merged = Histogram()
    for worker, total in sums.items():
        part = (Histogram.from_fine(fine[worker]["hist"]) if all_fine
                else Histogram.from_octaves(octaves[worker]["hist"]))
        part.sum_us, part.max_us = total["sum_us"], total["max_us"]
        part.waited_sum_us = total["waited_us"]
        merged.add(part)
    return merged
