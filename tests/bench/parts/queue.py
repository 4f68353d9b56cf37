# SPDX-License-Identifier: GPL-2.0-or-later
"""Handing faults from thread to thread: the fault queue against an eventfd and a locked queue."""

from .common import Part, run_program

KINDS = {"queue": "ours", "eventfd": "eventfd", "lazy": "lazy"}


def run(options):
    """One program does it all, in turns of its own."""
    words = ["--rounds", options.rounds, *(["--seconds", "0.5"] if options.quick else [])]
    found = run_program("queue", *words, timeout=600)
    part = Part(ratios={"queue_vs_eventfd": found["queue_vs_eventfd"]}, samples=found)
    part.table("handing over, in every shape that was measured",
               ["shape, producers", *(f"{title}, 1000/s" for title in KINDS.values()),
                *(f"{title}, CPU ns" for title in KINDS.values()), "vs eventfd", "vs lazy"],
               [[f"{shape['shape']}, {shape['producers']}",
                 *(shape[kind]["hand_overs_s"] / 1e3 for kind in KINDS),
                 *(shape[kind]["cpu_ns_per_hand_over"] for kind in KINDS),
                 shape["vs_eventfd"], shape["vs_lazy"]] for shape in found["shapes"]])
    return part
