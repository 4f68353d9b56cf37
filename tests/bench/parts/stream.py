# SPDX-License-Identifier: GPL-2.0-or-later
"""The background stream: what a page costs, and how fast they come."""

from .common import Cost, Part, Samples, Session, divided, placement_of, run_program
from .demand import CLASSIC, classic

SOURCE_CPU, DESTINATION_CPU = 0, 1
ONE_CORE = (1, 1, 1)  # where the classic handler is cheapest: it never wakes another core
CHUNKS = (256, 1024)  # KiB at once in the bare program; the faster counts
FLOORS = {"continue": "recv into place, CONTINUE", "memfd": "recv, COPY into a memory file",
          "anonymous": "recv, COPY into anonymous memory"}


TURNS = 2  # a round: it is short and noisy
BACKINGS = ("memfd", "unsealed", "anonymous")


def run(options):
    """Ours end to end, one page at a time, and bare receiving and placing, in turns."""
    mem = 128 if options.quick else 512
    pages = 16384 if options.quick else 65536
    samples = Samples()
    kinds = {}
    for _ in range(TURNS * options.rounds):
        for backing in BACKINGS:
            kinds[backing] = _ours(backing, mem, samples)
        for name, value in classic(CLASSIC, 1, pages, "ordered", ONE_CORE).items():
            if not isinstance(value, dict):
                samples.add(("classic", name), value)
        for floor in FLOORS:
            _floor(floor, mem, samples)
    return _report(samples, kinds)


def _ours(backing, mem, samples):
    """One VM's memory, without a fault; which floor it belongs to."""
    with Session(mem=mem, backing=backing, cpus=(DESTINATION_CPU, SOURCE_CPU),
                 settings={"stream_delay_ms": 0}) as session:
        cost = Cost(destination=session.destination_pid, source=session.source_pid)
        session.seal()
        session.vm.wait_event("released")
        session.vm_source.wait_event("done")
        spent = cost.spent()
        figures = session.figures()
    samples.add((backing, "mib_s"), mem / figures["complete_ms"] * 1e3)
    samples.add((backing, "cpu_us_per_page"), spent["destination"] / 1e3 / session.pages)
    samples.add((backing, "source_us_per_page"), spent["source"] / 1e3 / session.pages)
    if backing == "anonymous":
        return "anonymous"
    return "continue" if placement_of(figures) == "continue" else "memfd"


def _floor(kind, mem, samples):
    found = [run_program("floor_stream", kind, SOURCE_CPU, DESTINATION_CPU, mem, chunk)
             for chunk in CHUNKS]
    best = max(found, key=lambda one: one["mib_s"])
    for name, value in best.items():
        samples.add((f"floor {kind}", name), value)


def _report(samples, kinds):
    part = Part(samples=samples.as_dict())
    middle = samples.median
    floor = f"floor {kinds['memfd']}"
    part.ratios["stream_cpu_vs_classic"] = divided(middle(("memfd", "cpu_us_per_page")),
                                                   middle(("classic", "cpu_us_per_fault")))
    part.ratios["stream_vs_floor"] = divided(middle(("memfd", "mib_s")), middle((floor, "mib_s")))
    rows = []
    for backing, kind in kinds.items():
        rows.append([f"stream, {backing} memory ({kind})", middle((backing, "mib_s")),
                     middle((backing, "cpu_us_per_page")),
                     middle((backing, "source_us_per_page"))])
        rows.append([f"  its floor: {FLOORS[kind]}", middle((f"floor {kind}", "mib_s")),
                     middle((f"floor {kind}", "cpu_us_per_page")), None])
    rows.append(["one page at a time, by a classic handler, one core", None,
                 middle(("classic", "cpu_us_per_fault")), None])
    part.table("the stream", ["", "MiB/s", "CPU us/page, destination", "CPU us/page, source"], rows)
    part.notes.append(f"pages of sealed memory files were placed by "
                      f"{'CONTINUE' if kinds['memfd'] == 'continue' else 'COPY'}; source on CPU "
                      f"{SOURCE_CPU}, destination on CPU {DESTINATION_CPU}; the destination's CPU "
                      "time is that of the whole daemon; the classic handler has all on one "
                      "core, where it is cheapest")
    return part
