# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of bench.sh rdma that runs in the guest: rdma_guest.py RESULT clock|instructions ROUNDS

What the source's daemon does for an import, counted, by RDMA and by TCP; and what a demand fault takes, as
the thread that faults sees it, beside a bare READ and a bare userfaultfd.  In a guest whose clock counts
instructions only the latter, as all else there would take minutes.
"""

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from parts.common import Failure, Part, Samples, Session, divided, postcopyd, run_program, threads

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "rdma"))

# pylint: disable=wrong-import-position
from soft_roce import ADDRESSES, RoceWorld, by_rdma, by_tcp, merged  # noqa: E402

WHOLE = 256                       # MiB of an import
TURNS, FAULTS, WARM_UP = 8, 100, 250
ROOM = 32                         # MiB that have so many pages, and more
EVENTS = ("raw_syscalls:sys_enter", "context-switches")
ATTACH_S = 1.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Way:
    """How demand faults are served: CPUs are those of the guest's thread and of the destination's daemon."""

    title: str
    key: str               # ends its ratios' names
    guest: int = -1        # -1: wherever the kernel likes
    daemon: int = -1
    looks: bool = False    # as installed; else resolvers always sleep
    sessions: int = 1      # a round


WAYS = {"clock": (Way("as installed", "", looks=True, sessions=3),
                  Way("asleep", "_asleep", sessions=3),
                  Way("a core each", "_core_each", guest=0, daemon=1),
                  Way("on one core", "_one_core", guest=0, daemon=0)),
        "instructions": (Way("all", "_instructions", guest=0, daemon=0, sessions=2),)}
UNITS = {"clock": "us", "instructions": "thousand instructions"}


class Counter:
    """perf counts what a process does while it is open, threads that it makes included."""

    def __init__(self, pid):
        self._words = ["perf", "stat", "-x", ";", "-e", ",".join(EVENTS), "-p", str(pid)]
        self.counts = {}

    def __enter__(self):
        try:
            self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL,
                                             stderr=subprocess.PIPE, text=True)
        except FileNotFoundError as error:
            raise Failure("perf counts system calls: scripts/deps.sh --bench installs it") from error
        time.sleep(ATTACH_S)
        return self

    def __exit__(self, *_):
        self._process.send_signal(2)
        for line in self._process.communicate(timeout=30)[1].splitlines():
            words = line.split(";")
            if len(words) > 2 and words[2] in EVENTS:
                self.counts[words[2]] = int(words[0])
        if len(self.counts) != len(EVENTS):
            raise Failure(f"perf counted only {self.counts}")


def kernel_s(pid):
    """(in user mode, in the kernel): CPU seconds of a process, its ended threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def world_of(transport):
    """A world whose VMs travel so."""
    def make(source=None, destination=None):
        wanted = {"peer": {"transport": transport}}
        return RoceWorld(source=source, destination=merged(destination or {}, wanted))
    return make


def whole(transport, counted):
    """One import of a VM whose guest rests: what the source's daemon did, from the offer to the end."""
    with world_of(transport)(destination={"import": {"stream_delay_ms": 60000}}) as world:
        source, destination = world.vms(mem=WHOLE, fill=WHOLE)
        pid = world.source.process.pid
        before, begin = kernel_s(pid), time.monotonic()
        if counted:
            with Counter(pid) as counter:
                _go(world, source, destination)
        else:
            _go(world, source, destination)
        took = time.monotonic() - begin
        after = kernel_s(pid)
        arrived, _ = world.figures()
        if transport == "rdma":
            by_rdma(arrived, source.populated)
        else:
            by_tcp(arrived)
        if counted:
            return {name: count / WHOLE for name, count in counter.counts.items()}
        return {"user_ms": (after[0] - before[0]) * 1e3 / WHOLE,
                "kernel_ms": (after[1] - before[1]) * 1e3 / WHOLE, "mib_s": WHOLE / took}


def _go(world, source, destination):
    world.offer(source)
    source.do("seal")
    destination.do("running")
    destination.wait_event("released", timeout=120)
    source.wait_event("done")


def transfers(rounds, samples):
    """Both ways, in turns."""
    for _ in range(rounds):
        for transport in ("rdma", "tcp"):
            for counted in (True, False):
                for name, value in whole(transport, counted).items():
                    samples.add((transport, name), value)


def report_transfers(part, samples):
    """What was counted, a MiB."""
    rows, sums = [], {}
    for transport in ("rdma", "tcp"):
        calls, switches, user, kernel, speed = (
            samples.median((transport, name)) for name in (*EVENTS, "user_ms", "kernel_ms", "mib_s"))
        sums[transport] = calls + switches
        rows.append([transport, calls, switches, calls + switches, kernel, user, speed])
    part.ratios["source_cpu_vs_tcp"] = divided(sums["rdma"], sums["tcp"])
    part.ratios["source_kernel_cpu_vs_tcp"] = divided(rows[0][4], rows[1][4])
    part.table(f"the source's daemon, a MiB of an import of {WHOLE}",
               ["", "system calls", "context switches", "sum", "kernel CPU ms", "user CPU ms",
                "MiB/s"], rows)
    part.notes.append("source_cpu_vs_tcp is that of the sums, counted by perf; CPU time was measured in "
                      "other runs; rxe itself is software, and its work is done by whatever thread is "
                      "at hand")


def demand(rounds, ways, samples):
    """One thread that faults; ours and the floor with the same pinning, in short turns.

    Where nothing is pinned the kernel's placement may last for a session: hence several of them.
    """
    for _ in range(rounds):
        for session in range(max(way.sessions for way in ways)):
            for way in ways:
                if session < way.sessions:
                    _turns(way, samples)


def _turns(way, samples):
    settings = {"around": "4K"} if way.looks else {"around": "4K", "busy_poll_us": 0}
    with Session(mem=ROOM, cpus=(way.daemon, -1), settings=settings, world=world_of("rdma")) as session:
        session.seal()
        session.world.destination.wait_import("vm", lambda i: i["transport"]["spans"] > 0)
        session.touch(WARM_UP, cpu=way.guest)
        samples.add(("looks", way.title), session.world.destination.stats()["busy_poll_us"])
        before = _by_rdma(session)
        for _ in range(TURNS):
            _turn(session, way, samples)
        by_rdma = _by_rdma(session) - before
        if by_rdma < TURNS * FAULTS:
            raise Failure(f"only {by_rdma} of {TURNS * FAULTS} faults went by RDMA")
        session.finish()


def _turn(session, way, samples):
    slept = _sleeps(session)
    ours = session.touch(FAULTS, cpu=way.guest)["all"]
    slept = (_sleeps(session) - slept) / FAULTS
    found = {
        "ours": ours,
        "uffd": run_program("floor_uffd", "continue", way.guest, way.daemon, FAULTS, "process")["all"],
        "thread": run_program("floor_uffd", "continue", way.guest, way.daemon, FAULTS)["all"],
        "read": run_program("floor_rdma", *ADDRESSES, way.daemon, FAULTS),
        "bare": run_program("bare_rdma", *ADDRESSES, way.guest, way.daemon, FAULTS, WARM_UP)["all"],
    }
    for name, times in found.items():
        samples.add((name, way.title), times["p50_us"])
    samples.add(("ours p99", way.title), ours["p99_us"])
    samples.add(("floor", way.title), found["uffd"]["p50_us"] + found["read"]["p50_us"])
    samples.add(("sleeps", way.title), slept)


def _sleeps(session):
    """How often the destination's resolvers have slept."""
    return sum(sleeps for name, _, sleeps in threads(session.destination_pid).values()
               if name.startswith("resolver"))


def _by_rdma(session):
    figures = session.figures()["transport"]
    return figures["landed_pages"] + figures["staged_pages"]


def report_demand(part, what, samples):
    """A row for each way."""
    rows = []
    for way in WAYS[what]:
        ours, p99, looks, sleeps, uffd, read, floor, bare, thread = (
            samples.median((who, way.title))
            for who in ("ours", "ours p99", "looks", "sleeps", "uffd", "read", "floor", "bare", "thread"))
        rows.append([way.title, ours, p99, looks, sleeps, uffd, read, floor, divided(ours, floor), bare,
                     divided(ours, bare), thread])
        part.ratios[f"demand_vs_floor{way.key}"] = divided(ours, floor)
        part.ratios[f"demand_vs_bare{way.key}"] = divided(ours, bare)
    part.table(f"one remote demand fault by RDMA, as the guest's thread sees it, in {UNITS[what]}",
               ["", "ours p50", "p99", "busy_poll_us", "sleeps a fault", "bare uffd", "bare READ", "floor", "ours / floor",
                "bare handler", "ours / that", "uffd in a process"], rows)


def main():
    """Reads the arguments."""
    if len(sys.argv) != 4 or sys.argv[2] not in WAYS or not os.environ.get("RDMA_GUEST"):
        sys.exit("usage, in the soft-RoCE guest only: rdma_guest.py RESULT clock|instructions ROUNDS")
    result, what, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    part, samples = Part(), Samples()
    if what == "clock":
        transfers(rounds, samples)
        report_transfers(part, samples)
        part.notes.append("a bare userfaultfd's handler is another process, as the daemon is; the last "
                          "column has it in the guest's own, which spares two changes of the address "
                          "space. Those are dear where a CPU is emulated. The bare handler does both, and "
                          "nothing else")
    demand(rounds, WAYS[what], samples)
    report_demand(part, what, samples)
    result.write_text(json.dumps({
        "guest": {"kernel": platform.release(), "memory_mib": WHOLE, "build": str(postcopyd.BUILD.name)},
        "ratios": part.ratios, "tables": part.tables, "notes": part.notes,
        "samples": samples.as_dict()}), encoding="utf-8")


if __name__ == "__main__":
    main()
