# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults while regions come and go elsewhere in the same VM."""

from .common import Part, Samples, Session, divided

THREADS = 4
REGIONS = 8  # the last of them is the one that comes and goes


def run(options):
    """Faults a second with and without the churn, in turns, in one import."""
    n = 4096 if options.quick else 16384
    turns = 2 * options.rounds
    samples = Samples()
    touched = 2 * turns * n * 4 // 1024 + 16
    mem = (touched * REGIONS // (REGIONS - 1) // 16 // REGIONS + 1) * 16 * REGIONS
    with Session(mem=mem, settings={"around": "4K"}, regions=REGIONS, pluggable=True) as session:
        session.seal()
        session.touch(16)
        session.vm.do("churn")
        session.vm.do("calm")
        for turn in range(turns):
            # The first of a pair has the better of it as often as the second.
            for title in ("quiet", "churn")[::1 if turn % 2 else -1]:
                _one(session, title, n, samples)
    return _report(samples, mem // REGIONS)


def _one(session, title, n, samples):
    churned = 0
    if title == "churn":
        session.vm.do("churn")
    found = session.touch(n, threads=THREADS)
    if title == "churn":
        mark = len(session.vm.lines)
        session.vm.do("calm")
        churned = int(session.vm.wait_line("CHURNED", since=mark).split()[1])
    samples.add((title, "kfaults_s"), n / found["elapsed_ms"])
    samples.add((title, "p99_us"), found["all"]["p99_us"])
    samples.add((title, "regions_s"), churned / found["elapsed_ms"] * 1e3)


def _report(samples, mib):
    part = Part(samples=samples.as_dict())
    middle = samples.median
    part.ratios["churn_vs_quiet"] = divided(middle(("churn", "kfaults_s")),
                                            middle(("quiet", "kfaults_s")))
    part.notes.append("a pause of 10 ms between two of them: more would measure how two cores are "
                      "shared")
    part.table(f"{THREADS} threads fault while a region of {mib} MiB comes and goes",
               ["", "1000 faults/s", "p99 us", "regions/s"],
               [[title, *(middle((title, name)) for name in ("kfaults_s", "p99_us", "regions_s"))]
                for title in ("quiet", "churn")])
    return part
