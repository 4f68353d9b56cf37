# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that knows nothing of us migrates by its own post-copy; a daemon beside it reads its memory."""

import secrets
import sys
import time
import uuid
from pathlib import Path

from harness import host, native
from harness.case import pair, small, verified
from harness.postcopyd import expect
from harness.vm import Vm

sys.path.append(str(Path(__file__).resolve().parents[1] / "integration"))

# pylint: disable=wrong-import-position
from wire import Client, Peer, text  # noqa: E402

MIB = 1 << 20
READ_MAX = 2 * MIB  # of one READ


class _Asker:
    """What a destination's daemon does, by hand."""

    def __init__(self, both, vm, connection):
        self._both, self._vm = both, vm
        self._token = secrets.token_bytes(32)
        with Client(both.source.socket, timeout=20) as operator:
            answer = operator.ask(op="lend", vm="vm", uuid=vm.uuid,
                                  monitor=str(vm.control_socket), token=self._token.hex())
        expect(answer == {}, answer)
        self._connection = connection

    def ask(self, connection=None):
        """(code, text, token)."""
        return self._peer().ask(uuid.UUID(self._vm.uuid).bytes, "vm", self._token,
                                connection or self._connection)

    def _peer(self):
        return self._both.add(Peer(self._both.source.address, timeout=30, reserved=True)).greet()

    def attach(self):
        """The control connection, one that reads, and the regions."""
        code, why, token = self.ask()
        expect(code == 0, why)
        control, urgent = self._peer(), self._peer()
        control.send(Peer.ATTACH, uuid.UUID(self._vm.uuid).bytes + text("vm") + token)
        _, secret = control.attached()
        urgent.join(control.session, secret, Peer.URGENT)
        urgent.expect(Peer.JOINED)
        return control, urgent, control.regions


def _same(source, folder, urgent, regions):
    """Every page of every region is what the source's own monitor saves of it; bytes compared."""
    compared = 0
    for number, (name, guest, size, page_size, *_) in enumerate(regions):
        path = folder / "saved"
        source.qmp.cmd("pmemsave", val=guest, size=size, filename=str(path))
        batch = READ_MAX // page_size
        with path.open("rb") as saved:
            for first in range(0, size // page_size, batch):
                count = min(batch, size // page_size - first)
                urgent.read(number, first, count)
                for at, page in enumerate(urgent.pages(count, page_size), first):
                    expect(page == saved.read(page_size), f"{name}: page {at} differs")
                    compared += page_size
        path.unlink()
    return compared


def _switched(source, destination):
    """Post-copy at once, that brings next to nothing by itself; the destination's address."""
    for vm in (source, destination):
        vm.qmp.capabilities(events=True, postcopy_ram=True)
    source.qmp.cmd("migrate-set-parameters", max_bandwidth=native.PRECOPY_BANDWIDTH,
                   max_postcopy_bandwidth=1 << 20)
    uri = native.listen(destination)
    begin = time.time()
    source.qmp.cmd("migrate", uri=uri)
    source.qmp.wait_migration("active", since=begin)
    return begin, uri.removeprefix("tcp:")


def _read(spec):
    with pair() as both:
        source = both.add(Vm(spec, both.folder, "src"))
        source.wait_ready()
        destination = both.add(source.destination(name="dst"))
        begin, connection = _switched(source, destination)
        asker = _Asker(both, source, connection)
        code, why, _ = asker.ask("127.0.0.1:9")
        expect(code != 0 and "no connection" in why, f"{code}: {why}")
        control, urgent, regions = asker.attach()
        expect(sum(region[2] for region in regions) >= spec.mem_mb * MIB, regions)
        control.send(Peer.SEAL)
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.UNSEALED, "read while it runs")
        source.qmp.cmd("migrate-start-postcopy")
        source.qmp.wait_migration("postcopy-active", since=begin)
        control.send(Peer.SEAL)
        control.expect(Peer.SEALED)
        compared = _same(source, both.folder, urgent, regions)
        source.qmp.cmd("migrate-set-parameters", max_postcopy_bandwidth=0)
        source.qmp.wait_migration("completed", since=begin)
        told = verified(destination)
        found = both.source.exported("vm")
        expect(not found["fenced"] and found["mode"] == "assist", found)
        control.send(Peer.RELEASED)
        both.source.wait("end of the export",
                         lambda: both.source.exported("vm")["state"] == "done")
        return f"{compared // MIB} MiB the same, {told}"


def anonymous():
    """RAM that no file holds."""
    return _read(small(backend="anon"))


def memfd():
    """RAM in a memfd."""
    return _read(small())


def hugetlb():
    """RAM in 2 MiB pages."""
    spec = small(backend="hugetlb")
    with host.hugepages(2 * spec.mem_mb):
        return _read(spec)
