# SPDX-License-Identifier: GPL-2.0-or-later
"""Handing faults from thread to thread: the fault queue against an eventfd and a locked queue."""

from .common import Part, run_program


def run(options):
    """One program does it all, in turns of its own."""
    words = ["--rounds", options.rounds, *(["--seconds", "0.5"] if options.quick else [])]
    found = run_program("queue", *words, timeout=600)
    part = Part(ratios={"queue_vs_eventfd": found["queue_vs_eventfd"]}, samples=found)
    flat = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    part.table("handing over", ["", "value"], flat.items())
    return part
