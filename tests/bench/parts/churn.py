# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults while regions come and go elsewhere in the same VM."""

import subprocess

from .common import Part, Samples, Session, Skipped, divided, postcopyd

THREADS = 4
MIB_ADDED = 16


def run(options):
    """Faults a second with and without the churn, in turns, in one import."""
    vmm = postcopyd.BUILD / "tests/integration/vmm"
    usage = subprocess.run([vmm], capture_output=True, text=True, check=False).stderr
    if "--churn" not in usage:
        raise Skipped("regions cannot be added to or removed from an import yet")
    n = 4096 if options.quick else 16384
    turns = 2 * options.rounds
    samples = Samples()
    mem = (2 * turns * n * 4 // 1024 // 16 + 2) * 16
    with Session(mem=mem, settings={"around": "4K"}, churn=MIB_ADDED) as session:
        session.seal()
        for _ in range(turns):
            for title in ("quiet", "churn"):
                _one(session, title, n, samples)
        session.finish()
    part = Part(samples=samples.as_dict())
    middle = samples.median
    part.ratios["churn_vs_quiet"] = divided(middle(("churn", "kfaults_s")),
                                            middle(("quiet", "kfaults_s")))
    part.table(f"{THREADS} threads fault while regions of {MIB_ADDED} MiB come and go",
               ["", "1000 faults/s", "p99 us", "regions/s"],
               [[title, middle((title, "kfaults_s")), middle((title, "p99_us")),
                 middle((title, "regions_s"))] for title in ("quiet", "churn")])
    return part


def _one(session, title, n, samples):
    churned = 0
    if title == "churn":
        session.vm.do("churn")
    found = session.touch(n, threads=THREADS)
    if title == "churn":
        mark = len(session.vm.lines)
        session.vm.do("calm")
        churned = int(session.vm.wait_line("CHURNED", since=mark).split("=")[1])
    samples.add((title, "kfaults_s"), n / found["elapsed_ms"])
    samples.add((title, "p99_us"), found["all"]["p99_us"])
    samples.add((title, "regions_s"), churned / found["elapsed_ms"] * 1e3)
