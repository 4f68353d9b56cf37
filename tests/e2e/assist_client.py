# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own post-copy with the preload in the destination, and a daemon that may fail at any time."""

import atexit
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness import host
from harness.case import small, verified
from harness.native import PRECOPY_BANDWIDTH, listen
from harness.postcopyd import expect, preload
from harness.qmp import QmpCommandError
from harness.vm import Vm

FAKE = Path(__file__).resolve().parent / "harness" / "fake_daemon.py"

# QEMU's stream takes some seconds then, in which the guest faults.
POSTCOPY_BANDWIDTH = 12 << 20

MIDWAY = 2000


class FakeDaemon:
    """A running fake_daemon.py and its events; a context manager."""

    def __init__(self, socket, *words):
        self._changed = threading.Condition()
        self._events = []
        self._process = subprocess.Popen(
            [sys.executable, "-B", str(FAKE), "--socket", str(socket), *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        atexit.register(self.kill)
        threading.Thread(target=self._read, daemon=True).start()
        self.wait("ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        """SIGKILL, also if it is stopped."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        atexit.unregister(self.kill)

    def signal(self, number):
        """Stops it or lets it go on."""
        self._process.send_signal(number)

    def event(self, name):
        """The last event of that name so far, or None."""
        with self._changed:
            return next((event for event in reversed(self._events) if event["event"] == name), None)

    def wait(self, name, timeout=30.0):
        """An event of that name, waited for."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: any(event["event"] == name for event in self._events), timeout)
        expect(found, f"the fake daemon did not say {name}: {self._events[-3:]}")
        return self.event(name)

    def _read(self):
        for line in self._process.stdout:
            with self._changed:
                self._events.append(json.loads(line))
                self._changed.notify_all()


class Assisted:
    """A source, a destination with the preload, and the fake daemon."""

    def __init__(self, ends, folder, spec, words, wrapper=()):
        self.folder = Path(folder)
        self.source = ends.enter_context(Vm(spec, folder, "src"))
        self.source.wait_ready()
        socket = self.folder / "fake.sock"
        self.log_path = self.folder / "dst.client"
        self.destination = ends.enter_context(self.source.destination(
            name="dst", preload=preload(), wrapper=wrapper,
            env={"POSTCOPY_SOCKET": str(socket), "POSTCOPY_LOG": str(self.log_path)}))
        page_size = 2 << 20 if spec.backend == "hugetlb" else 4096
        self.daemon = None
        if words is not None:
            self.daemon = ends.enter_context(FakeDaemon(
                socket, "--source-pid", self.source.pid, "--source-address", ram(self.source),
                "--address", ram(self.destination), "--length", spec.mem_mb << 20,
                "--page-size", page_size, *words))

    def log(self):
        """What the preload said."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    def migrate(self, precopy=0.0, midway=None, planned=True):
        """Post-copy migrates, at once or after so many seconds of pre-copy."""
        for vm in (self.source, self.destination):
            vm.qmp.capabilities(events=True, postcopy_ram=True)
        if planned:
            self.daemon.wait("plan")
            time.sleep(0.2)
        self.source.qmp.cmd("migrate-set-parameters",
                            max_bandwidth=100 << 20 if precopy else PRECOPY_BANDWIDTH,
                            max_postcopy_bandwidth=POSTCOPY_BANDWIDTH)
        begin = time.time()
        self.source.qmp.cmd("migrate", uri=listen(self.destination))
        self.source.qmp.wait_migration("active", since=begin)
        time.sleep(precopy)
        self.source.qmp.cmd("migrate-start-postcopy")
        if midway:
            midway()
        for vm in (self.source, self.destination):
            done = vm.qmp.wait_migration("completed", "failed", "postcopy-paused", timeout=90)
            expect(done.data["status"] == "completed",
                   f"{vm.name}: {done.data}; {vm.stderr()[-300:]}")
        return verified(self.destination)

    def figures(self):
        """What the preload counted: placed, there, relayed, times, other."""
        deadline = time.monotonic() + 5
        while "is over" not in self.log() and time.monotonic() < deadline:
            time.sleep(0.02)
        found = re.search(r"over: (\d+) pages placed by QEMU, (\d+) that were there, "
                          r"(\d+) faults relayed in (\d+) times, (\d+) of other", self.log())
        expect(found, "the preload does not say how it went")
        return dict(zip(("placed", "there", "relayed", "times", "other"),
                        map(int, found.groups())))


def ram(vm):
    """Where the guest's memory begins in its QEMU."""
    return int(re.search(r"is (0x[0-9a-f]+)", vm.qmp.hmp("gpa2hva 0")).group(1), 16)


@contextlib.contextmanager
def assisted(*words, wrapper=(), daemon=True, **changes):
    """An Assisted; what the preload said is shown if the scenario fails."""
    spec = small(**{"fill_mb": 64, **changes})
    with host.workdir() as folder, contextlib.ExitStack() as ends:
        if wrapper:
            os.chmod(folder, 0o777)  # another user's QEMU makes its sockets and its log there
        both = Assisted(ends, folder, spec, words if daemon else None, wrapper)
        try:
            yield both
        except BaseException:
            print(f"-- preload\n{both.log()}", flush=True)
            raise


def served_well(**changes):
    """The daemon serves all faults to the end."""
    with assisted(**changes) as both:
        passes = both.migrate()
        end = both.daemon.wait("end")
        found = both.figures()
        expect(end["served"] > 0, f"the daemon served nothing: {end}")
        expect(found["there"] > 0, f"QEMU brought nothing that was there: {found}")
        expect(end["present"] > 0, f"nothing is marked as here: {end}")
        return f"{passes}, {end['served']} served, {found}"


def served():
    """Shared memory in a memfd."""
    return served_well()


def served_anonymous():
    """Private memory, which only this mode can serve."""
    return served_well(backend="anon")


def served_hugetlb():
    """2 MiB pages."""
    with host.hugepages(2 * 256):
        return served_well(backend="hugetlb")


def granted():
    """A QEMU that may not have a userfaultfd makes one of the device that the daemon lends it."""
    setting = Path("/proc/sys/vm/unprivileged_userfaultfd")
    if setting.read_text().strip() != "0" or not os.path.exists("/dev/userfaultfd"):
        raise host.Unavailable("this kernel lets everybody have a userfaultfd, or has no device")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    # /dev/kvm is root's as well.
    with assisted(wrapper=nobody, accel=host.TCG, fill_mb=32) as both:
        passes = both.migrate()
        end = both.daemon.wait("end")
        expect(both.daemon.event("device"), "nobody asked for the device")
        expect(end["served"] > 0, f"the daemon served nothing: {end}")
        return f"{passes}, {end['served']} served, {both.figures()}"


def not_granted():
    """Without the device it is refused as ever: post-copy is not to be had."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with assisted(wrapper=nobody, daemon=False, accel=host.TCG, fill_mb=32) as both:
        try:
            both.destination.qmp.capabilities(postcopy_ram=True)
        except QmpCommandError as error:
            both.destination.qmp.capabilities(postcopy_ram=False)
            return str(error)
        raise host.Unavailable("this kernel lets everybody have a userfaultfd")


def relayed(both, found):
    """QEMU's own fault thread took over, and the log says so."""
    expect(found["times"] > 0 and found["relayed"] > 0, f"nothing was relayed: {found}")
    expect("faults go to QEMU" in both.log(), "the preload does not say that it relays")


def killed_midway():
    """The daemon dies with faults it has read: QEMU resolves them."""
    with assisted("--end-after", MIDWAY) as both:
        passes = both.migrate()
        found = both.figures()
        expect(both.daemon.event("fails"), "the daemon was not killed")
        relayed(both, found)
        time.sleep(0.5)
        expect("no daemon to assist" not in both.log(), "another was asked when all was over")
        return f"{passes}, {found}"


def stopped_midway():
    """The daemon hangs with faults it has read: those older than 50 ms reach QEMU."""
    with assisted("--end-after", MIDWAY, "--how", "stop") as both:
        passes = both.migrate()
        found = both.figures()
        expect(both.daemon.event("fails"), "the daemon was not stopped")
        expect(not both.daemon.event("end"), "the daemon went on")
        expect("the daemon hangs" in both.log(), "the preload saw no daemon that hangs")
        relayed(both, found)
        return f"{passes}, {found}"


def stopped_anytime():
    """The daemon hangs at no particular moment: faults that nobody reads reach QEMU, too."""
    with assisted() as both:
        def midway():
            both.daemon.wait("served")
            both.daemon.signal(signal.SIGSTOP)
        passes = both.migrate(midway=midway)
        found = both.figures()
        expect(not both.daemon.event("end"), "the daemon went on")
        relayed(both, found)
        return f"{passes}, {found}"


def stopped_and_continued():
    """A daemon that hung for a second gets the faults back."""
    with assisted("--end-after", MIDWAY // 4, "--how", "stop") as both:
        def midway():
            both.daemon.wait("fails")
            time.sleep(1)
            both.daemon.signal(signal.SIGCONT)
        passes = both.migrate(midway=midway)
        end = both.daemon.wait("end")
        found = both.figures()
        relayed(both, found)
        expect("faults go to the daemon again" in both.log(), "the daemon got none back")
        expect(end["served"] > MIDWAY // 4, f"it served none of them: {end}")
        return f"{passes}, {end['served']} served, {found}"


def killed_after_plan():
    """The daemon dies before QEMU listens: all is QEMU's."""
    with assisted("--end-after", 0) as both:
        passes = both.migrate(planned=False)
        expect(both.daemon.event("fails"), "the daemon was not killed")
        expect("faults go to QEMU" not in both.log(), "QEMU was given a plan's uffd")
        return passes


def never_serves():
    """The daemon knows that QEMU listens and does nothing."""
    with assisted("--never-serve") as both:
        passes = both.migrate()
        both.daemon.wait("listen")
        found = both.figures()
        relayed(both, found)
        expect("does not serve" in both.log(), "the preload does not say why")
        return f"{passes}, {found}"


def serves_late():
    """The gate opens after a second."""
    with assisted("--delay", 1) as both:
        passes = both.migrate()
        end = both.daemon.wait("end")
        found = both.figures()
        relayed(both, found)
        expect(end["served"] > 0, f"the daemon served nothing: {end}")
        return f"{passes}, {end['served']} served, {found}"


def no_plan():
    """A daemon that knows of no migration: QEMU does as it would without us."""
    with assisted("--no-plan") as both:
        passes = both.migrate(planned=False)
        expect(both.daemon.event("assist"), "the daemon was not asked")
        expect("does not assist" in both.log(), "the preload does not say why")
        return passes


def no_daemon():
    """Nobody listens on the socket."""
    with assisted(daemon=False) as both:
        passes = both.migrate(planned=False)
        expect("no daemon to assist" in both.log(), "the preload does not say so")
        return passes


def hot_set():
    """Pages that came during pre-copy and changed are marked, those that did not are known."""
    with assisted() as both:
        passes = both.migrate(precopy=0.8)
        listened = both.daemon.wait("listen")
        end = both.daemon.wait("end")
        expect(end["found"] > 0, f"nothing came by pre-copy: {end}")
        expect(listened["missing"] > 0, f"nothing is hot: {listened}")
        return f"{passes}, {listened}, {end['served']} served, {both.figures()}"
