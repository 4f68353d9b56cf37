# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own post-copy with a daemon on either side and no libvirt: an operator tells both of the VM."""

import contextlib
import re
import secrets
import sys
import time
from pathlib import Path

from harness import host, native
from harness.case import pair, small, verified
from harness.postcopyd import expect, preload
from harness.vm import Vm

sys.path.append(str(Path(__file__).resolve().parents[1] / "integration"))

# pylint: disable=wrong-import-position
from wire import Client  # noqa: E402

# QEMU's stream takes some seconds then, in which the guest faults.
POSTCOPY_BANDWIDTH = 12 << 20


def _ask(daemon, **words):
    with Client(daemon.socket, timeout=20) as operator:
        answer = operator.ask(**words)
    expect(answer == {}, answer)


def _ram(vm):
    """Where the guest's memory begins in its QEMU."""
    return int(re.search(r"is (0x[0-9a-f]+)", vm.qmp.hmp("gpa2hva 0")).group(1), 16)


class _Beside:
    """Two QEMUs, of which both daemons know."""

    def __init__(self, both, spec):
        self.both = both
        both.destination.stop()
        both.destination.configure(libvirt={"source": both.source.address})
        both.destination.start()
        self.source = both.add(Vm(spec, both.folder, "src"))
        self.source.wait_ready()
        self.log = both.folder / "dst.client"
        self.destination = both.add(self.source.destination(
            name="dst", preload=preload(),
            env={"POSTCOPY_SOCKET": str(both.destination.socket), "POSTCOPY_LOG": str(self.log)}))
        vm = {"vm": "vm", "uuid": self.source.uuid, "token": secrets.token_hex(32)}
        _ask(both.source, op="lend", monitor=str(self.source.control_socket), **vm)
        region = {"id": "ram0", "guest_address": 0, "address": _ram(self.destination),
                  "length": spec.mem_mb << 20,
                  "page_size": 2 << 20 if spec.backend == "hugetlb" else 4096}
        _ask(both.destination, op="expect", mode="assist", pid=self.destination.pid,
             regions=[region], vcpus=self.destination.vcpu_threads(), **vm)

    def imported(self):
        """The import's figures."""
        return self.both.destination.imported("vm")

    def migrate(self, midway=None, precopy=0.5):
        """Pre-copies for a while, then post-copies; what the guest says, and the import's last figures."""
        for vm in (self.source, self.destination):
            vm.qmp.capabilities(events=True, postcopy_ram=True)
        self.source.qmp.cmd("migrate-set-parameters", max_bandwidth=native.PRECOPY_BANDWIDTH,
                            max_postcopy_bandwidth=POSTCOPY_BANDWIDTH)
        begin = time.time()
        self.source.qmp.cmd("migrate", uri=native.listen(self.destination))
        self.source.qmp.wait_migration("active", since=begin)
        self.both.destination.wait("plan", self.imported, 10)
        time.sleep(precopy)
        self.source.qmp.cmd("migrate-start-postcopy")
        found = self.both.destination.wait_import("vm", lambda i: i["faults"] > 20)
        if midway:
            midway()
        for vm in (self.source, self.destination):
            done = vm.qmp.wait_migration("completed", "failed", "postcopy-paused", timeout=90)
            expect(done.data["status"] == "completed", f"{vm.name}: {done.data}")
            with contextlib.suppress(Exception):
                found = self.imported() or found
        return verified(self.destination), found


@contextlib.contextmanager
def _beside(**changes):
    with pair() as both:
        yield _Beside(both, small(**{"fill_mb": 64, **changes}))


def _served(**changes):
    with _beside(**changes) as beside:
        told, found = beside.migrate()
        expect(found["mode"] == "assist" and found["pages"]["poisoned"] == 0, found)
        beside.both.destination.wait("end of the import", lambda: not beside.imported())
        beside.both.source.wait(
            "end of the export", lambda: beside.both.source.exported("vm")["state"] == "done")
        return (f"{told}, {found['faults']} faults, "
                f"p50 {found['latency']['p50_ns'] // 1000} us")


def memfd():
    """RAM in a memfd."""
    return _served()


def anonymous():
    """RAM that no file holds."""
    return _served(backend="anon")


def hugetlb():
    """2 MiB pages."""
    with host.hugepages(2 * 256):
        return _served(backend="hugetlb")


def _harmed(harm):
    with _beside() as beside:
        told, found = beside.migrate(midway=lambda: harm(beside.both))
        expect("faults go to QEMU" in beside.log.read_text(), "QEMU did not take over")
        return f"{told}, {found['faults']} faults before"


def destination_killed():
    """The destination's daemon dies while it serves."""
    return _harmed(lambda both: both.destination.kill())


def source_killed():
    """The source's daemon dies while it is asked."""
    return _harmed(lambda both: both.source.kill())
