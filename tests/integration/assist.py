# SPDX-License-Identifier: GPL-2.0-or-later
"""Assist mode at the destination: a daemon resolves faults beside a QEMU that brings the memory itself, and
nothing that happens to it, to the source or between them is more than a page that comes later."""

import contextlib
import ctypes
import errno
import functools
import json
import os
import platform
import re
import socket
import struct
import subprocess
import time
import uuid
from pathlib import Path

from lender import ASKED, MAIN, RELAY, SMALL, Lender
from monitor import Monitor, bound_socket
from wire import PAGE, Client, Peer, text
from world import MIB, Daemon, SLOW, Vmm, expect, host, mentions, postcopyd

MEM = 32  # MiB
PAGES = MEM * MIB // PAGE


class Assisted(Vmm):
    """tests/integration/assisted: a QEMU, its preload and its guest."""

    def __init__(self, daemon, mem=MEM, **popen):  # pylint: disable=super-init-not-called
        self._start([postcopyd.BUILD / "tests/integration/assisted", daemon.socket, mem],
                    "assisted", "vm", **popen)
        figures = dict(word.split("=") for word in self.wait_line("READY").split()[1:])
        self.port = int(figures["port"])
        self.regions = [{"id": "main", "guest_address": 0, "address": int(figures["main"]),
                         "length": mem * MIB, "page_size": PAGE},
                        {"id": "small", "guest_address": 1 << 32, "address": int(figures["small"]),
                         "length": MIB, "page_size": PAGE}]

    def ask(self, command):
        """What a command that has to succeed says, as figures."""
        begun = self.begin(command)
        expect(self.answered(begun) is None, f"{command}: {self.lines[-1:]}")
        line = self.wait_line(f"OK {begun[0]}", since=begun[1])
        return {name: int(value) for name, value in
                (word.split("=") for word in line.split()[2:])}

    def words(self):
        """The page table as its client sees it."""
        return self.ask("words")

    def wait_words(self, predicate, timeout=10.0):
        """Waits until predicate(words) holds; the words."""
        deadline = time.monotonic() + timeout * SLOW
        while not predicate(words := self.words()):
            expect(time.monotonic() < deadline, f"not in {timeout} s: {words}")
            time.sleep(0.005)
        return words

    def touch(self, first, count, threads=1, region=MAIN, zero=False):
        """The guest begins to read."""
        self.do(f"touch {region} {first} {count} {threads}{' zero' if zero else ''}")

    def touched(self, first, count, timeout=60.0, region=MAIN):
        """It has, and every word was right; the longest time of a page in us."""
        line = self.wait_line(f"EVENT touched region={region} first={first} count={count} ",
                              timeout=timeout)
        expect(" bad=0 " in line, f"{line} {[l for l in self.lines if l.startswith('BAD')][:3]}")
        return int(re.search(r"most_us=(\d+)", line).group(1))


class AssistWorld:
    """A source, a destination's daemon and a QEMU there; a context manager."""

    def __init__(self, mem=MEM, expected=True, **settings):
        self._ends = contextlib.ExitStack()
        self.uuid = uuid.uuid4()
        folder = Path(self._ends.enter_context(host.workdir()))
        self.lender = self.add(Lender([("small", 1 << 32, MIB), ("main", 0, mem * MIB)]))
        settings.setdefault("libvirt", {})["source_port"] = self.lender.port
        settings.setdefault("peer", {})["ping_ms"] = 100
        self.daemon = self.add(Daemon(folder, "b", **settings))
        self.vm = self.add(Assisted(self.daemon, mem))
        self.migration = None
        if expected:
            self.come()
            expect(self.expect() == {}, "expect failed")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if exception[0]:
            print(f"-- daemon\n{self.daemon.log()[-6000:]}", flush=True)
        return self._ends.__exit__(*exception)

    def add(self, thing):
        """Ends with the world."""
        return self._ends.enter_context(thing)

    def come(self):
        """QEMU's migration connection."""
        self.migration = self.add(socket.create_connection(("127.0.0.1", self.vm.port)))
        self.vm.wait_event("accepted")

    def request(self, **changed):
        """The request that announces the VM."""
        request = {"op": "expect", "vm": "vm", "uuid": str(self.uuid), "mode": "assist",
                   "pid": self.vm.process.pid, "regions": self.vm.regions, "vcpus": [],
                   "token": self.lender.vm_token.hex(),
                   "capabilities": {"postcopy-ram": True, "release-ram": False}, **changed}
        return {name: value for name, value in request.items() if value is not None}

    def expect(self, **changed):
        """The answer to it."""
        with Client(self.daemon.socket) as client:
            return client.ask(**self.request(**changed))

    def listen(self, hot=None, present=None):
        """Up to faults being served."""
        self.vm.do(f"assist {self.uuid.hex}")
        if present:
            self.vm.do(f"present {present[0]} {present[1]}")
        self.vm.do("register")
        if hot:
            self.vm.do(f"hot {hot[0]} {hot[1]}")
        self.vm.do("listen")
        self.vm.wait_words(lambda words: words["serving"] == 1)

    def imported(self):
        """The import's figures, None if there is none."""
        return self.daemon.imported("vm")

    def settled(self):
        """No fault waits, as the client sees it."""
        return self.vm.wait_words(lambda words: words["busy_ms"] == -1)

    def gone(self):
        """The import ends."""
        self.daemon.wait("end of the import", lambda: not self.imported(), 10 * SLOW)


def faults():
    """The guest reads all of its memory, none of which QEMU has brought."""
    with AssistWorld() as world:
        world.lender.zero = set(range(600, 700))
        world.listen(present=(0, 64))
        said = world.lender.asked
        expect(said == [(world.uuid.bytes, "vm", world.lender.vm_token,
                         f"127.0.0.1:{world.vm.port}")], said)
        world.vm.touch(0, 600)
        world.vm.touched(0, 600)
        world.vm.touch(600, 100, zero=True)
        world.vm.touched(600, 100)
        world.vm.touch(700, PAGES - 700)
        world.vm.touched(700, PAGES - 700)
        world.vm.touch(0, 256, region=SMALL)
        world.vm.touched(0, 256, region=SMALL)
        words = world.settled()
        expect(words["present"] == PAGES and words["found"] == 64, f"some page is not marked: {words}")
        found = world.imported()
        expect(found["mode"] == "assist" and found["state"] == "running", found)
        expect(found["pages"]["hole"] == 0 and found["pages"]["zero"] == 100, found["pages"])
        expect(world.lender.read_pages == PAGES - 64 + 256,
               f"{world.lender.read_pages} pages were asked for")
        expect(found["faults"] < PAGES / 8, f"{found['faults']} faults: no neighbours came along")
        shown = world.daemon.ctl("status")
        expect(shown.returncode == 0 and "vm" in shown.stdout, shown)
        return f"{found['faults']} faults"


def two_daemons():
    """With a source's daemon that is one, to which a VM was lent."""
    with contextlib.ExitStack() as ends:
        folder = Path(ends.enter_context(host.workdir()))
        a = ends.enter_context(Daemon(folder, "a"))
        b = ends.enter_context(Daemon(folder, "b", libvirt={"source": a.address}))
        listener = bound_socket(folder / "qmp")
        left = ends.enter_context(Assisted(a, preexec_fn=listener.listen))
        right = ends.enter_context(Assisted(b))
        monitor = ends.enter_context(Monitor(
            listener, [(region["address"], region["length"]) for region in left.regions],
            [left.process.pid]))
        for region, name in zip(right.regions, ("ram0", "ram1")):
            region["id"] = name
        left.do(f"present 0 {PAGES}")
        vm = {"vm": "vm", "uuid": str(uuid.uuid4()), "token": os.urandom(32).hex()}
        with Client(a.socket) as source, Client(b.socket) as destination:
            expect(source.ask(op="lend", monitor=monitor.path, **vm) == {}, "not lent")
            expect(destination.ask(op="expect", mode="assist", pid=right.process.pid,
                                   regions=right.regions, **vm) == {}, "not expected")
        left.do(f"connect {right.port}")
        right.wait_event("accepted")
        right.do("assist")
        right.do("register")
        right.do(f"hot 0 {PAGES // 4}")
        right.do("listen")
        expect(right.words()["serving"] == 0, "it serves while the source runs")
        right.touch(5, 100)
        monitor.stopped_in_postcopy()
        right.touched(5, 100)
        right.touch(0, PAGES, 8)
        right.touched(0, PAGES)
        right.touch(0, 256, region=SMALL, zero=True)
        right.touched(0, 256, region=SMALL)
        found = b.imported("vm")
        expect(found["mode"] == "assist" and found["pages"]["by_stream"] > 0, found)
        right.do("end")
        a.wait("end of the export", lambda: a.exported("vm")["state"] == "done", 10 * SLOW)


def hot_set():
    """Only what the client marked is fetched without a fault."""
    with AssistWorld() as world:
        world.listen(hot=(1000, 777))
        world.vm.wait_words(lambda words: words["present"] == 777)
        time.sleep(0.2)
        words = world.vm.words()
        expect(words["present"] == 777 and words["hole"] == PAGES - 777, words)
        world.vm.touch(1000, 777)
        world.vm.touched(1000, 777)
        expect(world.imported()["faults"] == 0, "what was there faulted")


def qemu_places_too():
    """A page comes from both: the second finds it there, and that is fine."""
    with AssistWorld() as world:
        world.listen()
        world.lender.silence()
        world.vm.touch(100, 1)
        world.vm.wait_words(lambda words: words["requested"] > 0)
        expect(world.vm.ask("place 0 1024")["there"] == 0, "somebody placed pages before")
        world.vm.touched(100, 1)
        world.lender.speak()
        world.settled()
        world.vm.wait_words(lambda words: words["requested"] == 0)
        found = world.imported()
        expect(found["pages"]["eexist"] > 0 and found["state"] == "running", found)
        words = world.vm.words()
        expect(words["found"] == found["pages"]["eexist"], f"taken for its own: {words}, {found}")
        world.vm.touch(1024, PAGES - 1024)
        world.vm.touched(1024, PAGES - 1024)
        expect(world.vm.ask("place 1024 100")["there"] == 100, "pages came that were not there")


def many_threads():
    """Faults of many threads on many shards, while QEMU places the same pages."""
    with AssistWorld(mem=128, **{"import": {"resolvers": 4, "shards": 2}}) as world:
        pages = 128 * MIB // PAGE
        world.listen(hot=(pages // 2, pages // 4))
        world.vm.touch(0, pages, 16)
        for first in range(0, pages, 1024):
            world.vm.ask(f"place {first} 1024")
        world.vm.touched(0, pages)
        words = world.settled()
        expect(words["present"] + words["requested"] == pages, words)
        found = world.imported()
        expect(found["state"] == "running" and found["faults"] > 0, found)
        return f"{found['faults']} faults, {found['pages']['eexist']} pages from both"


def source_silent():
    """The source says nothing any more: the client sees it within 50 ms, and takes over and gives back."""
    with AssistWorld() as world:
        world.listen()
        world.lender.silence()
        world.vm.touch(0, 4, 4)
        world.vm.wait_words(lambda words: words["busy_ms"] > 50)
        world.vm.ask("relay on")
        world.vm.touched(0, 4)
        expect(world.vm.ask("relay on")["relayed"] > 0, "nothing was relayed")
        world.vm.wait_words(lambda words: words["serving"] == 0)
        world.lender.speak()
        world.vm.wait_words(lambda words: words["serving"] == 1)
        world.settled()
        world.vm.ask("relay off")
        before = world.imported()["pages"]["by_fault"]
        world.vm.touch(2000, 500)
        world.vm.touched(2000, 500)
        found = world.imported()
        expect(found["pages"]["by_fault"] > before and found["state"] == "running", found)
        expect(found["reconnects"] > 0, "the link was not made anew")


def source_killed():
    """The source's daemon is gone for good: QEMU goes on alone."""
    with AssistWorld() as world:
        world.listen()
        world.vm.touch(0, 100)
        world.vm.touched(0, 100)
        world.lender.kill()
        world.vm.wait_words(lambda words: words["serving"] == 0)
        world.vm.touch(3000, 10)
        world.vm.ask("relay on")
        world.vm.touched(3000, 10)
        world.vm.ask(f"place 0 {PAGES}")
        expect(world.imported()["pages"]["poisoned"] == 0, "something was poisoned")
        world.vm.ask("relay off")
        world.vm.do("end")
        world.gone()


def source_forgets():
    """A source that knows no more of it, as after its daemon's restart, ends it quietly."""
    with AssistWorld() as world:
        world.listen()
        world.lender.knows = False
        world.lender.cut()
        world.gone()
        expect(world.vm.words()["serving"] == 0, "it says that it serves")
        expect("error" not in world.daemon.log(), world.daemon.log()[-2000:])
        world.vm.touch(0, 10)
        world.vm.ask("relay on")
        world.vm.touched(0, 10)


def plan_withdrawn():
    """A source that forgets it before QEMU listens: the client is told, and may ask again."""
    with AssistWorld() as world:
        world.vm.do(f"assist {world.uuid.hex}")
        world.lender.knows = False
        world.lender.cut()
        world.vm.do("withdrawn")
        world.gone()
        mentions(world.vm.refused("listen"), "PLAN")
        world.lender.knows = True
        world.listen()
        world.vm.touch(0, 10)
        world.vm.touched(0, 10)


def unreadable_pages():
    """What the source cannot read is left to QEMU: nothing is poisoned, nobody waits unseen."""
    with AssistWorld() as world:
        world.lender.unreadable = {5, 1500}
        world.listen(hot=(1490, 20))
        world.vm.touch(5, 1)
        world.vm.wait_words(lambda words: words["busy_ms"] > 300)
        found = world.imported()
        expect(found["pages"]["retried"] > 1, "it was not asked for again")
        world.vm.touch(6, 1000)
        world.vm.touched(6, 1000)
        world.vm.ask("place 5 1")
        world.vm.touched(5, 1)
        world.settled()
        world.vm.touch(1500, 1)
        world.vm.wait_words(lambda words: words["busy_ms"] > 50)
        world.lender.unreadable = set()
        world.vm.touched(1500, 1)
        world.settled()
        found = world.imported()
        expect(found["pages"]["poisoned"] == 0 and found["state"] == "running", found)
        expect("error" not in world.daemon.log(), world.daemon.log()[-2000:])


def relaying():
    """While the client relays the daemon reads no fault; afterwards it does again."""
    with AssistWorld(**{"import": {"resolvers": 2}}) as world:
        world.listen()
        world.vm.ask("relay on")
        time.sleep(0.05)
        world.vm.touch(0, 500, 8)
        world.vm.touched(0, 500)
        expect(world.imported()["faults"] == 0, "the daemon read a fault")
        relayed = world.vm.ask("relay off")["relayed"]
        expect(relayed == 500, f"{relayed} faults were relayed")
        world.vm.touch(500, 500, 8)
        world.vm.touched(500, 500)
        expect(world.imported()["faults"] > 0, "the daemon reads no fault")
        expect(world.vm.ask("relay off")["relayed"] == relayed, "the client went on relaying")


def end():
    """END releases the source, whatever the table says, and the process may come again."""
    with AssistWorld() as world:
        world.listen()
        world.vm.touch(0, 50)
        world.vm.touched(0, 50)
        world.vm.ask(f"place 0 {PAGES // 2}")
        world.vm.do("end")
        expect(world.lender.released.wait(10 * SLOW), "the source was not released")
        world.gone()
        expect(world.vm.words()["serving"] == 0, "it says that it serves")
        past = world.daemon.stats("vm")["past"][0]
        expect(past["mode"] == "assist" and past["state"] == "released", past)
        expect(past["present_bytes"] >= 50 * PAGE, past)
        expect(past["faults"] > 0 and 0 < past["complete_ms"] <= past["running_s"] * 1000 + 1, past)
        world.listen()


def client_disconnects():
    """The connection ends and the process lives: so does the import end, and another may begin."""
    with AssistWorld() as world:
        world.listen()
        world.vm.do("reconnect")
        world.gone()
        expect(world.daemon.stats("vm")["past"][0]["state"] == "ended", "it is said to have come whole")
        expect(world.vm.words()["serving"] == 0, "it says that it serves")
        expect(not world.lender.released.is_set(), "the source was released")
        world.daemon.wait("end of the link", lambda: not world.lender.attached(), 10 * SLOW)
        world.vm.touch(0, 10)
        world.vm.ask("relay on")
        world.vm.touched(0, 10)
        world.vm.ask("relay off")
        world.vm.refused("listen")
        world.vm.do(f"assist {world.uuid.hex}")


def process_killed():
    """QEMU dies."""
    with AssistWorld() as world:
        world.listen()
        world.lender.silence()
        world.vm.touch(0, 10, 10)
        world.vm.wait_words(lambda words: words["busy_ms"] > 0)
        world.vm.kill()
        world.gone()
        world.lender.speak()
        world.daemon.wait("end of the link", lambda: not world.lender.attached(), 10 * SLOW)
        expect("nobody" in world.expect().get("error", "") or world.expect().get("errno"),
               "a dead process is expected")


def daemon_dies():
    """The daemon is killed with faults in its hands, and its successor knows nothing of it."""
    with AssistWorld() as world:
        world.listen()
        world.lender.silence()
        world.vm.touch(0, 16, 16)
        world.vm.wait_words(lambda words: words["busy_ms"] > 0)
        world.daemon.kill()
        expect(world.vm.words()["busy_ms"] > 0, "nothing tells of the faults it had")
        world.vm.ask("relay on")
        world.vm.touched(0, 16)
        world.daemon.start()
        expect(not world.imported(), "it goes on")
        world.vm.ask(f"place 0 {PAGES}")


def device_only_if_granted():
    """/dev/userfaultfd for clients that may not open it, unless the configuration says no."""
    with AssistWorld() as world:
        world.vm.do("device")
        world.listen()
        world.vm.touch(0, 10)
        world.vm.touched(0, 10)
        world.daemon.stop()
        world.daemon.configure(daemon={"grant_device": "no"})
        world.daemon.start()
        world.vm.do("reconnect")
        mentions(world.vm.refused("device"), "grant_device")
        world.expect()
        expect(world.vm.ask(f"assist {world.uuid.hex}")["device"] == 0, "the device came along")


def _limit(world, *words):
    """postcopyctl limit, which has to succeed: the limits of the VMs, by name."""
    done = world.daemon.ctl("limit", "--json", *words)
    expect(done.returncode == 0, done.stderr)
    return {vm["vm"]: vm["limit_bytes_s"] for vm in json.loads(done.stdout)["vms"]}


def limited():
    """A VM that has no client's HELLO has a limit of its own too, from before it is assisted on."""
    hot = 8 * MIB // PAGE
    with AssistWorld(**{"import": {"vm_limit": "64M"}}) as world:
        expect(_limit(world, "vm") == {"vm": 64 * MIB}, _limit(world, "vm"))
        expect(_limit(world) == {}, "nothing arrives yet")
        expect(_limit(world, "vm", "1M") == {"vm": MIB}, "not set")
        expect(world.expect() == {}, "it cannot be told again")
        world.listen(hot=(0, hot))
        begin = time.monotonic()
        time.sleep(2)
        came, took = world.vm.words()["present"], time.monotonic() - begin + 1
        expect(0 < came * PAGE < took * MIB + MIB, f"{came} pages in {took:.1f} s")
        expect(_limit(world) == {"vm": MIB}, _limit(world))
        expect(world.imported()["vm_limit_bytes_s"] == MIB, world.imported())
        expect(_limit(world, str(world.uuid), "none") == {"vm": 0}, "by its uuid")
        world.vm.wait_words(lambda words: words["present"] == hot, timeout=2)
        refused = world.daemon.ctl("limit", "other", "1M")
        expect(refused.returncode != 0, refused)
        mentions(refused.stderr, "other")
        return f"{came * PAGE / took / MIB:.2f} MiB/s"


def _no_memory_for_tables():
    """From here on this process allocates no more of a file than a page table's header."""
    number = {"x86_64": 285, "aarch64": 47}[platform.machine()]  # fallocate
    lines = ((0x20, 0, 0, 0), (0x15, 0, 3, number),         # another system call?
             (0x20, 0, 0, 40), (0x25, 0, 1, 32768),         # of how much?
             (0x06, 0, 0, 0x50000 | errno.ENOSPC), (0x06, 0, 0, 0x7fff0000))
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in lines))
    head = ctypes.create_string_buffer(
        struct.pack("<HxxxxxxQ", len(lines), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, head):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


def table_is_allocated():
    """Memory for the table that QEMU writes to is there before QEMU hears of it, or it never does."""
    with AssistWorld() as world:
        world.vm.do(f"assist {world.uuid.hex}")
        folder = Path(f"/proc/{world.daemon.process.pid}/fd")
        tables = [os.stat(fd) for fd in folder.iterdir() if "postcopyd-pages" in os.readlink(fd)]
        expect(len(tables) == 1 and tables[0].st_blocks * 512 >= tables[0].st_size > PAGES // 2,
               f"{[(table.st_blocks * 512, table.st_size) for table in tables]}")
        world.daemon.stop()
        world.daemon.starter = functools.partial(subprocess.Popen,
                                                 preexec_fn=_no_memory_for_tables)
        world.daemon.start()
        world.vm.do("reconnect")
        world.expect()
        said = world.vm.refused(f"assist {world.uuid.hex}")
        mentions(said, "no memory", "table")
        world.daemon.wait_log("no memory", "table")
        return said


def _change(region, **changed):
    return [{**region, **changed}]


def expect_nonsense():
    """What an operator gets wrong is told in one line, and nothing of it stays."""
    with AssistWorld(expected=False) as world:
        main, small = world.vm.regions
        other = subprocess.Popen(["true"])
        other.wait()
        for changed, words in (
                ({"mode": "direct"}, ("mode",)), ({"mode": None}, ("mode",)),
                ({"vm": ""}, ("vm",)), ({"vm": "x" * 256}, ("vm",)), ({"vm": "a\nb"}, ("vm",)),
                ({"uuid": "nonsense"}, ("uuid",)), ({"uuid": "0" * 32}, ("uuid",)),
                ({"uuid": None}, ("uuid",)),
                ({"pid": 0}, ("pid",)), ({"pid": -1}, ("pid",)), ({"pid": "1"}, ("pid",)),
                ({"pid": 1 << 40}, ("pid",)), ({"pid": other.pid}, ("process",)),
                ({"token": "12"}, ("token",)), ({"token": "x" * 64}, ("token",)),
                ({"token": 5}, ("token",)), ({"regions": None}, ("regions",)),
                ({"regions": []}, ("regions",)), ({"regions": {}}, ("regions",)),
                ({"regions": [1]}, ("region",)), ({"regions": [main, main]}, ("overlap",)),
                ({"regions": [main] * 129}, ("many",)),
                ({"regions": _change(main, id="")}, ("region",)),
                ({"regions": _change(main, id="x" * 128)}, ("region",)),
                ({"regions": _change(main, address=0)}, ("region",)),
                ({"regions": _change(main, address=main["address"] + 1)}, ("region",)),
                ({"regions": _change(main, address=(1 << 63) - PAGE)}, ("region",)),
                ({"regions": _change(main, length=0)}, ("region",)),
                ({"regions": _change(main, length=PAGE + 1)}, ("region",)),
                ({"regions": _change(main, length=1 << 50)}, ("region",)),
                ({"regions": _change(main, page_size=3)}, ("region",)),
                ({"regions": _change(main, guest_address=-1)}, ("region",)),
                ({"regions": _change(main, guest_address=1.5)}, ("region",)),
                ({"vcpus": [0]}, ("vcpus",)), ({"vcpus": ["1"]}, ("vcpus",)),
                ({"vcpus": {}}, ("vcpus",)), ({"ports": {}}, ("ports",)), ({"ports": [0]}, ("ports",)),
                ({"ports": ["1"]}, ("ports",)), ({"ports": [65536]}, ("ports",)),
                ({"ports": [1] * 1025}, ("ports",)), ({"vcpus": [1] * 4097}, ("vcpus",))):
            answer = world.expect(**changed)
            expect(answer.get("errno"), f"{str(changed)[:200]}: {answer}")
            mentions(answer["error"], *words)
        world.come()
        mentions(world.vm.refused(f"assist {world.uuid.hex}"), "expect")
        expect(world.expect(regions=[small, main]) == {}, "order matters")
        expect(world.expect() == {}, "it cannot be told again")
        world.listen()


def not_expected():
    """Whoever may not be assisted is told why, and may ask again."""
    with AssistWorld(expected=False) as world:
        ask = f"assist {world.uuid.hex}"
        mentions(world.vm.refused(ask), "expect")
        world.expect(pid=os.getpid())
        mentions(world.vm.refused(ask), "expect")
        world.expect(token=None)
        mentions(world.vm.refused(ask), "token")
        world.expect(capabilities={"release-ram": True})
        mentions(world.vm.refused(ask), "release-ram")
        large = {"address": 1 << 40, "length": 1 << 30, "page_size": 1 << 30}
        expect(world.expect(regions=_change(world.vm.regions[0], **large)) == {},
               "a VM with large pages is no VM")
        world.daemon.wait_log("will not be assisted", "1024 MiB")
        mentions(world.vm.refused(ask), "main", "1024 MiB")
        world.expect()
        mentions(world.vm.refused("assist " + "12" * 16), "uuid")
        mentions(world.vm.refused(ask), "no migration")
        expect(not world.lender.asked, "the source was asked all the same")
        expect("refused" not in world.daemon.log(),
               "a process that asks before its time is told, not the log")
        world.come()
        world.vm.do(ask)
        world.vm.do(ask)
        expect(len(world.lender.asked) == 1, "asked for what it was given")
        with Client(world.daemon.socket) as client:
            client.send(26, world.uuid.bytes + text("vm"))
            mentions(client.refusal(-errno.EAGAIN), "expect")
            client.send(Client.HELLO, Client.hello("x", [Client.region("r", 1 << 30, MIB)]))
            expect(client.receive()[0] == Client.WELCOME, "no client any more")
            client.send(26, world.uuid.bytes + text("vm"))
            mentions(client.refusal(), "HELLO")


def _take_pid(world, pid):
    """A process that gets this pid, if nobody else does meanwhile."""
    for _ in range(1000):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1), encoding="ascii")
        process = subprocess.Popen(["sleep", "1000"])
        if process.pid == pid:
            world.callback(process.kill)
            return
        process.kill()
        process.wait()
    raise AssertionError(f"{pid} is never free")


def pid_of_another():
    """A process connects and ends: nobody gets what is meant for the next one with its pid."""
    with AssistWorld(expected=False) as world, contextlib.ExitStack() as ends:
        clients = [ends.enter_context(Client()) for _ in range(2)]
        pid = os.fork()
        if pid == 0:
            for client in clients:
                client.socket.connect(str(world.daemon.socket))
            os._exit(0)
        os.waitpid(pid, 0)
        _take_pid(ends, pid)
        expect(world.expect(pid=pid) == {}, "not expected")
        clients[0].send(26, world.uuid.bytes + text("vm"))
        mentions(clients[0].refusal(), "ended")
        clients[1].send(Client.HELLO, Client.hello("x", [Client.region("r", 1 << 30, MIB)]))
        mentions(clients[1].refusal(), "ended", str(pid))


def _asking(daemon):
    """How many of its threads look for a source."""
    return sum(comm.read_text() == "ask\n"
               for comm in Path(f"/proc/{daemon.process.pid}/task").glob("*/comm"))


def asks_in_a_loop():
    """However often a process comes and goes, one thread asks for it, and who is there gets the answer."""
    with AssistWorld(expected=False) as world, contextlib.ExitStack() as ends:
        listener = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        ends.enter_context(socket.create_connection(listener.getsockname()))
        ends.enter_context(listener.accept()[0])
        expect(world.expect(pid=os.getpid()) == {}, "not expected")
        world.lender.silence()
        ask = world.uuid.bytes + text("vm")
        for _ in range(40):
            with Client(world.daemon.socket) as client:
                client.send(26, ask)
                time.sleep(0.01)
        last = ends.enter_context(Client(world.daemon.socket, timeout=20 * SLOW))
        last.send(26, ask)
        time.sleep(0.1)
        expect(_asking(world.daemon) == 1, f"{_asking(world.daemon)} threads ask")
        world.lender.speak()
        kind, _ = last.receive()
        expect(kind == 27, f"message {kind}")
        expect(len(world.lender.asked) == 1, world.lender.asked)


def console_is_no_source():
    """Whoever looks at the VM's console, connected to its process as its source is, is not asked."""
    with AssistWorld(expected=False) as world:
        ask = f"assist {world.uuid.hex}"
        console = world.vm.port
        world.add(socket.create_connection(("127.0.0.1", console)))
        world.vm.wait_event("accepted")
        expect(world.expect(ports=[console]) == {}, "not expected")
        mentions(world.vm.refused(ask), "no migration")
        expect(not world.lender.asked, "the console's client was asked")
        expect(world.expect(ports=[1, console + 1 if console < 65535 else 2]) == {}, "not expected")
        world.listen()


def several_hosts():
    """Connections of two hosts, and no word which one is the migration: nobody is asked."""
    with AssistWorld() as world:
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))
            other.connect(("127.0.0.1", world.vm.port))
            world.vm.wait_event("accepted", count=2)
            mentions(world.vm.refused(f"assist {world.uuid.hex}"), "several hosts")
        expect(not world.lender.asked, "somebody was asked")


def source_refuses():
    """The source's reasons come through, and it can be asked again on the same connection."""
    with AssistWorld() as world:
        ask = f"assist {world.uuid.hex}"
        world.lender.refusal = "that guest does not migrate"
        mentions(world.vm.refused(ask), "does not migrate")
        world.lender.refusal = ""
        world.lender.knows = False
        mentions(world.vm.refused(ask), "token unknown")
        world.lender.knows = True
        good = world.lender.regions
        for bad in ([("small", 1 << 32, MIB)], [("small", 1 << 32, MIB), ("main", 0, MIB)],
                    [("small", 1 << 32, MIB), ("other", 0, MEM * MIB)], good + good):
            world.lender.regions = bad
            world.vm.refused(ask)
        world.lender.regions = good
        world.listen()


def hostile_client():
    """Messages out of turn and fds that are none harm only who sends them."""
    with AssistWorld() as world:
        mentions(world.vm.refused("listen none"), "PLAN")
        world.vm.do(f"assist {world.uuid.hex}")
        world.vm.do("register")
        for how in ("none", "few", "many", "other", "fork", "remove"):
            mentions(world.vm.refused(f"listen {how}"), "userfaultfd")
        with Client(world.daemon.socket) as client:
            for kind in (28, 29):
                client.send(kind)
            mentions(client.refusal(), "PLAN")
            client.send(26, b"\xff")
            mentions(client.refusal(), "malformed")
        world.vm.do("listen")
        mentions(world.vm.refused("listen"), "once")
        mentions(world.vm.refused(f"assist {world.uuid.hex}"), "already")
        world.vm.wait_words(lambda words: words["serving"] == 1)
        world.vm.touch(0, 100)
        world.vm.touched(0, 100)


def sealed_late():
    """A source that could not seal when it was asked is asked again."""
    with AssistWorld() as world:
        world.lender.seals = False
        for line in (f"assist {world.uuid.hex}", "register", "listen"):
            world.vm.do(line)
        world.daemon.wait("SEAL again", lambda: world.lender.seal_requests >= 3, 10 * SLOW)
        expect(world.vm.words()["serving"] == 0, "it serves before the seal")
        expect(world.lender.seal_requests < 12, "asked without pause")
        world.lender.seals = True
        world.vm.wait_words(lambda words: words["serving"] == 1)
        world.vm.touch(0, 10)
        world.vm.touched(0, 10)


def _says(body):
    def answer(peer):
        peer.send(ASKED, body)
    return answer


def hostile_source():
    """A source that speaks nonsense, or runs again: QEMU goes on alone."""
    with AssistWorld() as world:
        ask = f"assist {world.uuid.hex}"
        for answer in (_says(b""), _says(b"\xff" * 40), _says(struct.pack("<I", 77) + text("") + bytes(32)),
                       lambda peer: peer.send(Peer.SEALED, bytes(8)),
                       lambda peer: peer.socket.close()):
            world.lender.answers_ask = answer
            world.vm.refused(ask)
        world.lender.answers_ask = None
        world.lender.seals = False
        world.vm.do(ask)
        world.vm.do("register")
        world.lender.tell(RELAY)
        world.vm.do("listen")
        world.daemon.wait("SEAL", lambda: world.lender.seal_requests, 10 * SLOW)
        expect(world.vm.words()["serving"] == 0, "it serves before the seal")
        world.lender.seals = True
        world.lender.cut()
        world.vm.wait_words(lambda words: words["serving"] == 1)
        world.lender.corrupt = lambda peer, ids, item: world.lender.reply(
            peer, ids, item, Peer.DATA, 0, item[3], b"\xee" * (PAGE * item[3]), seal=99)
        world.vm.touch(0, 1)
        world.vm.wait_words(lambda words: words["busy_ms"] > 100)
        world.lender.corrupt = None
        world.vm.touched(0, 1)
        world.lender.tell(Peer.FENCED, struct.pack("<I", 8) + text("it runs again") + text(""))
        world.daemon.wait_import("vm", lambda found: found["state"] == "fenced")
        expect(world.vm.words()["serving"] == 0, "it serves a fenced guest")
        world.vm.touch(3000, 10)
        world.vm.ask("relay on")
        world.vm.touched(3000, 10)
