# SPDX-License-Identifier: GPL-2.0-or-later
"""The test guest as its records show it, whatever its QEMU was started by."""

import time

from . import stalls


class VmError(Exception):
    """The VM is not, or does not do, what was expected."""


class Guest:
    """What is asked of a guest on one host.

    Whoever inherits has name, spec, log (a GuestLog), alive() and stderr().
    """

    def wait_record(self, kind, predicate=lambda record: True, timeout=60.0):
        """The first such record, also one that came before."""
        record = self.log.wait(kind, lambda r: r.kind == "FATAL" or predicate(r), timeout,
                               self.alive)
        if record is None:
            fatal = self.log.last("FATAL")
            raise VmError(f"{self.name}: no {kind} in {timeout} s; alive {self.alive()}; "
                          f"{fatal or self.log.last('TICK')}; {self.stderr()[-500:]}")
        return record

    def wait_ready(self, timeout=120.0):
        """Waits until all memory is filled."""
        return self.wait_record("READY", timeout=timeout)

    def wait_passes(self, n, epoch=0, timeout=120.0):
        """Waits until every worker has finished n full passes in an epoch (or a later one)."""
        return self.wait_record("TICK", lambda tick: tick["epoch"] > epoch or (
            tick["epoch"] == epoch and tick["passes"] >= n), timeout)

    def wait_ticks(self, n, timeout=60.0):
        """Waits for n more ticks."""
        start = len(self.log.records("TICK"))
        deadline = time.monotonic() + timeout
        while len(self.log.records("TICK")) < start + n:
            if time.monotonic() > deadline or not self.alive():
                raise VmError(f"{self.name}: the guest stands still; {self.stderr()[-500:]}")
            time.sleep(0.02)

    def bad(self):
        """Wrong words found so far, as far as reported."""
        return max([record["bad"] for kind in ("TICK", "PASS")
                    for record in self.log.records(kind)[-32:]], default=0)

    def bad_records(self):
        """The first wrong words each worker found."""
        return self.log.records("BAD")

    def first_touches(self, epoch=1, pass_number=0):
        """Histogram of first touches of all filled pages in a pass; None until it is complete."""
        return stalls.first_touches(self.log, epoch, pass_number, self.spec.vcpus)

    def wait_first_touches(self, epoch=1, timeout=120.0):
        """The same for an epoch's pass 0, waited for."""
        self.wait_passes(1, epoch, timeout)
        deadline = time.monotonic() + 5
        while (found := self.first_touches(epoch)) is None:
            if time.monotonic() > deadline:
                raise VmError(f"{self.name}: STALL records of epoch {epoch} are missing")
            time.sleep(0.02)
        return found
