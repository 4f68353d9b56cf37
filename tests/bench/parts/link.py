# SPDX-License-Identifier: GPL-2.0-or-later
"""Two daemons joined by a slow link: what demand faults and the stream cost each other."""

import contextlib
import os
import shutil
import subprocess
import threading
import time

from .common import MIB, Part, Samples, Session, Skipped, World, divided
from world import Daemon  # pylint: disable=wrong-import-order

RATE = 125e6  # bytes a second
SHAPE = ("tbf", "rate", "1gbit", "burst", "64kb", "latency", "50ms")
THINK_US = 1500
SETTINGS = {"around": "4K"}


class SlowLink:
    """Two network namespaces and a veth between them; a context manager that leaves nothing."""

    def __init__(self):
        self._names = [f"pcb-{os.getpid()}-{end}" for end in "ab"]
        self.addresses = ("10.231.0.1", "10.231.0.2")
        self._ends = contextlib.ExitStack()

    def __enter__(self):
        for tool in ("ip", "tc"):
            if not shutil.which(tool):
                raise Skipped(f"{tool} is not installed")
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self._ends.close()
            raise Skipped(f"network namespaces: {error.stderr.strip()}") from error
        return self

    def __exit__(self, *_):
        self._ends.close()

    def prefix(self, end):
        """Words that run a program at this end."""
        return ("ip", "netns", "exec", self._names[end])

    def _make(self):
        for name in self._names:
            _do("ip", "netns", "add", name)
            self._ends.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        a, b = self._names
        _do("ip", "-n", a, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0",
            "netns", b)
        for name, address in zip(self._names, self.addresses):
            _do("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _do("ip", "-n", name, "link", "set", device, "up")
            _do("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", *SHAPE)


def _do(*words):
    subprocess.run(words, check=True, capture_output=True, text=True)


class FarDaemon(Daemon):
    """A daemon at one end of the link."""

    def __init__(self, folder, name, link, end, **settings):
        self.prefix = link.prefix(end)
        self._at = f"{link.addresses[end]}:16520"
        super().__init__(folder, name, peer={"insecure_plaintext": "yes"}, **settings)

    def start(self, timeout=10.0):
        self.address = self._at
        self._settings["peer"]["listen"] = self._at
        super().start(timeout)


class FarWorld(World):
    """Both daemons at their ends."""

    def __init__(self, link, **settings):
        self._link = link
        super().__init__(**settings)

    def make(self, name, settings):
        return FarDaemon(self.folder, name, self._link, "ab".index(name), **settings)


def run(options):
    """Random single faults, with the stream off and at full speed, in turns."""
    seconds = 2 if options.quick else 6
    samples = Samples()
    with SlowLink() as link:
        for _ in range(options.rounds):
            _alone(link, seconds, samples)
            _under_bulk(link, seconds, samples)
    return _report(samples)


def _touches(seconds):
    """That many touches take about so long."""
    return int(seconds * 1e6 / (THINK_US + 300))


def _alone(link, seconds, samples):
    n = _touches(seconds)
    with Session(mem=(n // 256 // 16 + 2) * 16, settings=SETTINGS,
                 world=lambda **settings: FarWorld(link, **settings)) as session:
        session.seal()
        found = session.touch(n, think=THINK_US)
        _add(samples, "off", found)
        session.finish()


class Rate:
    """Samples how much has come over the bulk channels, until it is ended."""

    def __init__(self, session):
        self._session = session
        self._points = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._stop.wait(0.2):
            figures = self._session.figures()
            self._points.append((time.monotonic(), figures["state"], sum(
                channel["bytes"] for channel in figures["channels"]
                if channel["kind"] == "bulk")))

    def end(self):
        """Bytes a second while the stream ran, without its first and last moments."""
        self._stop.set()
        self._thread.join()
        running = [(when, n) for when, state, n in self._points if n > 0 and state == "running"]
        running = running[1:-1]
        if len(running) < 3:
            return None
        return (running[-1][1] - running[0][1]) / (running[-1][0] - running[0][0])


def _under_bulk(link, seconds, samples):
    mem = int(seconds * RATE * 1.1) // MIB // 16 * 16
    with Session(mem=mem, settings=SETTINGS,
                 world=lambda **settings: FarWorld(link, **settings)) as session:
        session.seal()
        session.vm.do("running")
        rate = Rate(session)
        found = session.touch(_touches(seconds * 0.9), think=THINK_US)
        share = rate.end()
        _add(samples, "on", found)
        if share is not None:
            samples.add(("on", "share"), share / RATE)
        session.vm.wait_event("released", timeout=120)
        session.vm_source.wait_event("done")
        pages = session.figures()["pages"]
        samples.add(("on", "faulted"), pages["by_fault"] / session.pages)


def _add(samples, title, found):
    for name in ("n", "p50_us", "p99_us", "max_us"):
        samples.add((title, name), found["waited"][name])


def _report(samples):
    part = Part(samples=samples.as_dict())
    middle = samples.median
    part.ratios["urgent_under_bulk"] = divided(middle(("on", "p99_us")), middle(("off", "p99_us")))
    part.ratios["bulk_link_share"] = middle(("on", "share"))
    part.table("demand faults over a link of 1 Gbit/s",
               ["", "that waited", "p50 us", "p99 us", "longest us", "stream's share",
                "pages by fault"],
               [[f"stream {title}", *(middle((title, name)) for name in (
                   "n", "p50_us", "p99_us", "max_us", "share", "faulted"))]
                for title in ("off", "on")])
    part.notes.append("the share is payload and its heads over 125 MB/s; Ethernet, IP and TCP "
                      "leave 0.956 of a link of frames of 1500 bytes")
    return part
