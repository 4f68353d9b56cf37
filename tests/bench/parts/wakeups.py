# SPDX-License-Identifier: GPL-2.0-or-later
"""Many service threads on one userfaultfd: how many does a fault wake?"""

from .common import Part, Samples, divided, run_program

ROWS = {"read": "stock read", "poll": "stock poll", "ours": "ours"}
WAITERS = 40
WORKERS = (8, 16, 32)
LATENCY_MIB = 16
LATENCY_TURNS = 3  # a round: it is short and noisy
# service threads, worker
CORES = {"another core": (1, 0), "the same core": (0, 0)}
FIGURES = {"ms": "ms", "wakeups_per_fault": "wake-ups/fault", "returns_per_fault": "returns/fault",
           "cpu_us_per_fault": "CPU us/fault"}


def run(options):
    """The table of the kernel patch that made these wake-ups exclusive, with ours beside it."""
    mem = 64 if options.quick else 512
    samples = Samples()
    for _ in range(options.rounds):
        for workers in WORKERS:
            for row in ROWS:
                found = run_program("wakeups", row, WAITERS, workers, mem)
                for name in FIGURES:
                    samples.add((row, workers, name), found[name])
        for _ in range(LATENCY_TURNS):
            _latency(samples)
    return _report(samples, mem)


def _latency(samples):
    """One worker: what a fault takes with few and many who wait for it."""
    for title, cpus in CORES.items():
        for row in ROWS:
            for waiters in (1, WAITERS):
                found = run_program("wakeups", row, waiters, 1, LATENCY_MIB, *cpus)
                samples.add((row, title, waiters), found["p50_us"])


def _report(samples, mem):
    part = Part(samples=samples.as_dict())
    middle = samples.median
    part.ratios["wakeups_per_fault_max"] = max(
        round(middle(("ours", workers, "wakeups_per_fault")), 4) for workers in WORKERS)
    part.ratios["time_vs_stock_read_w8"] = divided(middle(("ours", 8, "ms")),
                                                   middle(("read", 8, "ms")))
    part.ratios["p50_40_vs_1"] = divided(middle(("ours", "another core", WAITERS)),
                                         middle(("ours", "another core", 1)))
    part.table(f"{WAITERS} service threads, {mem} MiB of first touches",
               ["workers", *FIGURES.values()],
               [[f"{workers}: {title}", *(middle((row, workers, name)) for name in FIGURES)]
                for workers in WORKERS for row, title in ROWS.items()])
    part.table("one worker: p50 of a fault, us",
               ["service threads on", "1", f"{WAITERS}", "ratio"],
               [[f"{where}: {title}", middle((row, where, 1)), middle((row, where, WAITERS)),
                 divided(middle((row, where, WAITERS)), middle((row, where, 1)))]
                for where in CORES for row, title in ROWS.items()])
    part.notes.append("a wake-up is a voluntary context switch of a service thread; a return is "
                      "one from the call that waits, also when it did not have to sleep; one "
                      "wake-up may serve several faults")
    part.notes.append("on the worker's own core a lone thread finds the next fault before it "
                      "sleeps, while of many the kernel wakes another each time: p50_40_vs_1 is "
                      "that of another core, where one has to be woken either way")
    return part
