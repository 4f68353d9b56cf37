# SPDX-License-Identifier: GPL-2.0-or-later
"""Demand faults, one page each: latency, CPU time and system calls, beside a classic handler's."""

import json
import subprocess

from .common import (Failure, Part, Samples, Session, bench_program, divided, placement_of,
                     run_program)
from .syscalls import NAMES, Counter

THREADS = (1, 8, 32, 64)
CLASSIC_THREADS = (1, 8)
# guest, destination's daemon, source's daemon; -1: wherever the kernel likes
ONE_CORE, TWO_HOSTS = "all on one core", "guest and destination on one core"
PINNINGS = {ONE_CORE: (0, 0, 0), TWO_HOSTS: (0, 0, 1),
            "source and destination on one core": (1, 0, 0), "free": (-1, -1, -1)}
COST_PINNINGS = {ONE_CORE: (0, 0, 0), "source on another core": (0, 0, 1)}
LATENCY_TURNS = 2  # a round: it is short and noisy
ONE_PAGE = {"around": "4K"}
CLASSIC = "memfd"  # the classic handler copies, whatever the memory


def run(options):
    """Everything about demand faults."""
    part = Part()
    samples = Samples()
    kind = _latency(options, samples)
    _threads(options, samples)
    calls = _syscalls(options)
    part.samples = samples.as_dict()
    _report_latency(part, samples, kind)
    _report_cost(part, samples, kind)
    _report_calls(part, calls)
    return part


def classic(kind, n_threads, pages, order, cpus=(-1, -1, -1), counter=False):
    """One run of the classic handler; with counter also its system calls a fault.

    cpus are those of guest, handler and source.
    """
    words = [bench_program("classic"), kind, n_threads, pages, order, *cpus]
    with subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = process.stdout.readline().split()
            if len(ready) != 3:
                raise Failure(f"classic does not start: {ready}")
            if not counter:
                return json.loads(process.communicate("go\n\n", timeout=120)[0])
            with Counter(tids=[int(ready[1])]) as calls:
                process.stdin.write("go\n")
                process.stdin.flush()
                found = json.loads(process.stdout.readline())
            return {**found, "calls": {name: n / found["faults"]
                                       for name, n in calls.counts.items()},
                    "problem": calls.problem}
        finally:
            process.kill()


# --- latency ------------------------------------------------------------------------------------

def _latency(options, samples):
    """One thread; ours and the floor with the same pinning, in turns. How pages were placed."""
    n = 1000 if options.quick else 4000
    kind = None
    for _ in range(LATENCY_TURNS * options.rounds):
        for title, (guest, destination, source) in PINNINGS.items():
            with Session(mem=_room(n), cpus=(destination, source), settings=ONE_PAGE) as session:
                session.seal()
                session.touch(n // 8, cpu=guest)
                found = session.touch(n, cpu=guest)
                kind = _kind(session.finish())
            samples.add(("ours", title, "p50_us"), found["all"]["p50_us"])
            samples.add(("ours", title, "p99_us"), found["all"]["p99_us"])
            uffd = run_program("floor_uffd", kind, guest, destination, n)["all"]
            tcp = run_program("floor_tcp", destination, source, n)
            samples.add(("uffd", title, "p50_us"), uffd["p50_us"])
            samples.add(("tcp", title, "p50_us"), tcp["p50_us"])
            samples.add(("floor", title, "p50_us"), uffd["p50_us"] + tcp["p50_us"])
    return kind


def _room(pages):
    """MiB that have so many pages, and some more."""
    return (pages * 5 // 4 // 256 // 16 + 2) * 16


def _kind(figures):
    """The floors' name for how this import places pages."""
    return "continue" if placement_of(figures) == "continue" else "memfd"


def _report_latency(part, samples, kind):
    middle = samples.median
    rows = []
    for title in PINNINGS:
        ours, floor = (middle((who, title, "p50_us")) for who in ("ours", "floor"))
        rows.append([title, ours, middle(("uffd", title, "p50_us")),
                     middle(("tcp", title, "p50_us")), floor, divided(ours, floor),
                     middle(("ours", title, "p99_us"))])
    part.ratios["demand_vs_floor"] = rows[list(PINNINGS).index(TWO_HOSTS)][5]
    part.ratios["demand_vs_floor_one_core"] = rows[list(PINNINGS).index(ONE_CORE)][5]
    part.table(f"one remote demand fault, as the guest's thread sees it ({kind})",
               ["", "ours p50 us", "bare uffd", "bare TCP", "floor", "ours / floor", "ours p99 us"],
               rows)
    part.notes.append("demand_vs_floor is that of a source on a core of its own, as another host "
                      "is; where all share one core no idle core has to be woken, and what is "
                      "ours weighs most")


# --- CPU time -----------------------------------------------------------------------------------

def _threads(options, samples):
    """More and more faulting threads, and the classic handler with few, in turns."""
    n = 4096 if options.quick else 16384
    for _ in range(options.rounds):
        for title, cpus in COST_PINNINGS.items():
            _ours(title, cpus, n, samples)
            for threads in CLASSIC_THREADS:
                found = classic(CLASSIC, threads, n, "random", cpus)
                where = ("classic", title, threads)
                samples.add((*where, "destination_us"), found["cpu_us_per_fault"])
                samples.add((*where, "kfaults_s"), n / found["touch"]["elapsed_ms"])
                samples.add((*where, "p50_us"), found["touch"]["all"]["p50_us"])


def _ours(title, cpus, n, samples):
    guest, destination, source = cpus
    with Session(mem=_room(len(THREADS) * n), cpus=(destination, source),
                 settings=ONE_PAGE) as session:
        session.seal()
        for threads in THREADS:
            found = session.touch(n, threads=threads, cpu=guest)
            where = ("ours", title, threads)
            for name in ("destination_us", "source_us"):
                samples.add((*where, name), found[name])
            samples.add((*where, "kfaults_s"), n / found["elapsed_ms"])
            samples.add((*where, "p50_us"), found["all"]["p50_us"])
        session.finish()


def _report_cost(part, samples, kind):
    middle = samples.median
    title = next(iter(COST_PINNINGS))
    ours, theirs = ({threads: middle((who, title, threads, "destination_us"))
                     for threads in THREADS} for who in ("ours", "classic"))
    for threads in CLASSIC_THREADS:
        part.ratios[f"demand_cpu_vs_classic_{threads}"] = divided(ours[threads], theirs[threads])
    part.ratios["demand_cpu_vs_classic"] = part.ratios["demand_cpu_vs_classic_8"]
    part.ratios["cpu_per_fault_64_vs_1"] = divided(ours[64], ours[1])
    for title in COST_PINNINGS:
        rows = [[f"{who}, {threads} threads",
                 *(middle((who, title, threads, name))
                   for name in ("destination_us", "source_us", "kfaults_s", "p50_us"))]
                for who, counts in (("ours", THREADS), ("classic", CLASSIC_THREADS))
                for threads in counts]
        part.table(f"demand faults of single pages, {title} ({kind})",
                   ["", "CPU us/fault, destination", "CPU us/fault, source", "1000 faults/s",
                    "p50 us"], rows)
    part.notes.append("ours is the CPU time of the whole daemon, the classic handler's that of its "
                      "one thread; both ask the same server; the ratios are those with all on one "
                      "core, demand_cpu_vs_classic that with 8 threads")


# --- system calls -------------------------------------------------------------------------------

def _syscalls(options):
    """In runs of their own: counting costs time."""
    n = 4096 if options.quick else 16384
    found = {}
    with Session(mem=_room(len(CLASSIC_THREADS) * n), settings=ONE_PAGE) as session:
        session.seal()
        for threads in CLASSIC_THREADS:
            with Counter(pid=session.destination_pid) as calls:
                session.touch(n, threads=threads)
            found["ours", threads] = ({name: count / n for name, count in calls.counts.items()},
                                      calls.problem)
        session.finish()
    for threads in CLASSIC_THREADS:
        result = classic(CLASSIC, threads, n, "random", counter=True)
        found["classic", threads] = (result["calls"], result["problem"])
    return found


def _report_calls(part, calls):
    problem = next((problem for counts, problem in calls.values() if not counts), None)
    if problem:
        part.notes.append(f"system calls were not counted: {problem}")
        return
    names = [name for name in NAMES
             if any(counts.get(name, 0) > 0.005 for counts, _ in calls.values())]
    part.table("system calls a demand fault, at the destination", ["", "all", *names, "other"],
               [[f"{who}, {threads} threads", counts.get("all", 0),
                 *(counts.get(name, 0) for name in names),
                 counts.get("all", 0) - sum(counts.get(name, 0) for name in names)]
                for (who, threads), (counts, _) in calls.items()])
    part.samples["syscalls"] = {f"{who}/{threads}": counts
                                for (who, threads), (counts, _) in calls.items()}
