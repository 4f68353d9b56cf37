# SPDX-License-Identifier: GPL-2.0-or-later
"""A running guest moves from one daemon to another, and its old QEMU is killed at once.

Called by scripts/demo.sh once everything is built.  Exits with 0 only if every word the guest
looked at was right, although almost all of its memory was missing when it went on.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from harness import host
from harness.operator import Operator, OperatorError
from harness.postcopyd import DaemonError, Pair, timeline
from harness.qmp import QmpError
from harness.vm import Spec, VmError

VM = "demo"
PASSES = 2
MISSING_AT_RESUME = 0.90
MISSING_AT_KILL = 0.50
FILL_LEAST_MB = 64   # of less the guest may have all before anybody has looked
OWN_MB = 96          # what the guest keeps for itself and the firmware leaves dirty
ZERO_MB = (32, 128)  # how much is never filled, and looked at all the same: least, most
BAR = 30


def line(text):
    """Something that a person reads while it happens."""
    print(text, flush=True)


class Killer:
    """SIGKILLs the source's QEMU as soon as the guest runs on the destination."""

    def __init__(self, pair, source):
        self._source = source
        # Asked over a connection that is there already: the stream does not wait.
        self._operator = pair.add(Operator(pair.destination.socket))
        self.import_after = None

    def on_event(self, event):
        """Called with each of postcopyctl's events the moment it is read."""
        if event.get("phase") == "resumed":
            os.kill(self._source.pid, signal.SIGKILL)
            self.import_after = self._operator.ask("stats", vm=VM)["imports"][0]
        self._show(event)

    def _show(self, event):
        if event["event"] == "phase" and event["phase"] != "complete":
            line(f"   {event['elapsed_ms'] / 1000:6.2f} s  {event['text']}")
            if event["phase"] == "resumed":
                line("             the source's QEMU is killed (SIGKILL)")
        elif event["event"] == "progress" and event["populated_bytes"]:
            share = event["present_bytes"] / event["populated_bytes"]
            bar = "#" * round(share * BAR)
            line(f"   {event['elapsed_ms'] / 1000:6.2f} s  [{bar:{BAR}}] {share:4.0%}  "
                 f"{event['rate_bytes_s'] / 2**20:5.0f} MiB/s  {event['faults']} faults")
        elif event["event"] == "note":
            line(f"             note: {event['text']}")


def plot(histogram):
    """Lines that show a Histogram's octaves, from 1 us up."""
    octaves = {}
    for (start, _), n in histogram.counts.items():
        bucket = max(start.bit_length() - 1, 10)
        octaves[bucket] = octaves.get(bucket, 0) + n
    if not octaves:
        return []
    most = max(octaves.values())
    lines = []
    for bucket in range(min(octaves), max(octaves) + 1):
        n = octaves.get(bucket, 0)
        # A square root, or a few slow ones would not be seen.
        width = round((n / most) ** 0.5 * BAR)
        lines.append(f"   less than {readable_ns(2 << bucket):>7}  {'#' * width:{BAR}} {n}")
    return lines


def readable_ns(ns):
    """A time as people write it."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"


def octaves(histogram):
    """Counts of [2^i, 2^(i+1)) ns."""
    counts = [0] * 40
    for (start, _), n in histogram.counts.items():
        counts[min(max(start.bit_length() - 1, 0), len(counts) - 1)] += n
    return counts


def words_checked(guest):
    """Words that all workers verified on the destination."""
    first = guest.log.records("TICK")[0]
    last = guest.log.last("TICK")
    pages = sum(last[key] - first[key] for key in ("pages", "zero_pages"))
    return pages * 512


def follow(pair, options, spec):
    """Migrates, waits for the passes, and returns the figures."""
    line(f"== a guest with {spec.mem_mb} MiB of memory and {spec.vcpus} vCPUs fills "
         f"{spec.fill_mb} MiB ({spec.accelerator.split(',')[0]})")
    source = pair.source_vm(spec, VM)
    source.wait_passes(1)
    destination = pair.destination_vm(source, vm=VM)
    line(f"== postcopyctl migrate --destination {pair.destination.address} {VM}")
    killer = Killer(pair, source)
    migration = pair.migrate(source, destination, VM, on_event=killer.on_event)
    migration.succeed(options.timeout)
    line(f"== all memory has arrived; the guest verifies it {PASSES} times more")
    times = timeline(migration, source, destination, pair.destination, VM)
    destination.wait_passes(PASSES, epoch=1, timeout=options.timeout)
    destination.wait_ticks(3)
    if killer.import_after is None:
        raise DaemonError("the source's QEMU was not killed")
    return source, destination, times, killer


def figures(pair, source, destination, times, killer):
    """What the JSON file holds."""
    arrived = pair.destination.imported(VM)
    touches = destination.wait_first_touches()
    populated = arrived["populated_bytes"]
    present_at_kill = killer.import_after["present_bytes"]
    return {
        "downtime_ms": round(times.downtime_ms, 2),
        "complete_ms": round((times.completed - times.resume) * 1e3, 1),
        "faults": arrived["faults"],
        "missing_at_resume": round(arrived["missing_at_running"] / populated, 4),
        "missing_at_kill": round(1 - present_at_kill / populated, 4),
        "fault_p50_us": round(arrived["latency"]["p50_ns"] / 1e3, 1),
        "fault_p99_us": round(arrived["latency"]["p99_ns"] / 1e3, 1),
        "stall_hist": octaves(touches),
        "stall": touches.summary(),
        "words_checked": words_checked(destination),
        "words_bad": destination.bad(),
        "bytes_wire": arrived["received_bytes"],
        "pages_zero": arrived["pages"]["zero"],
        "pages_copied": arrived["pages"]["copied"],
        "pages_populated": populated // 4096,
        "passes": destination.log.last("TICK")["passes"],
        "zero_pages_checked": destination.log.last("TICK")["zero_pages"],
        "accel": destination.spec.accelerator,
        "vcpus": destination.spec.vcpus,
        "mem_mb": destination.spec.mem_mb,
        "fill_mb": destination.spec.fill_mb,
        "source_status": source.process.wait(),
    }, touches


def verdicts(result, destination):
    """(what, whether it holds) of all that makes this a success."""
    return [
        ("no word was wrong", result["words_bad"] == 0),
        (f"at least {MISSING_AT_RESUME:.0%} was missing when the destination resumed",
         result["missing_at_resume"] >= MISSING_AT_RESUME),
        (f"at least {MISSING_AT_KILL:.0%} was missing after the source's QEMU was killed",
         result["missing_at_kill"] >= MISSING_AT_KILL),
        ("the source's QEMU died of SIGKILL", result["source_status"] == -signal.SIGKILL),
        (f"the destination ran on for {PASSES} full passes",
         result["passes"] >= PASSES and destination.status() == "running"),
        ("memory never filled was verified to read zero", result["zero_pages_checked"] > 0),
    ]


def summary(result, touches):
    """Prints it for people."""
    line("")
    for name, text in (
            ("downtime", f"{result['downtime_ms']:.1f} ms (STOP to RESUME, by QEMU's time stamps)"),
            ("memory complete", f"{result['complete_ms']:.0f} ms after RESUME"),
            ("still missing", f"{result['missing_at_resume']:.1%} at RESUME, "
                              f"{result['missing_at_kill']:.1%} after the kill"),
            ("faults", f"{result['faults']}, p50 {result['fault_p50_us']:.0f} us, "
                       f"p99 {result['fault_p99_us']:.0f} us"),
            ("pages", f"{result['pages_copied']} copied, {result['pages_zero']} zero; "
                      f"{result['bytes_wire'] / 2**20:.0f} MiB on the wire"),
            ("verified", f"{result['words_checked']} words in {result['passes']} passes, "
                         f"{result['words_bad']} bad")):
        line(f"   {name:16} {text}")
    line("")
    line(f"   how long the guest's first touch of each of its {touches.n} filled pages took:")
    for row in plot(touches):
        line(row)
    line("")


def kept_free(options):
    """MiB that the guest cannot fill: 4 bytes tell of each page that it fills."""
    return OWN_MB + options.fill // 1024


def run(options):
    """The demo; 0 if all verdicts are good."""
    zero = min(ZERO_MB[1], options.mem - options.fill - kept_free(options))
    spec = Spec(mem_mb=options.mem, vcpus=options.vcpus, fill_mb=options.fill, zero_mb=zero,
                zero_epoch=1)
    with host.workdir() as folder:
        try:
            with Pair(folder) as pair:
                try:
                    source, destination, times, killer = follow(pair, options, spec)
                    result, touches = figures(pair, source, destination, times, killer)
                    judged = verdicts(result, destination)
                except (DaemonError, OperatorError, VmError, QmpError) as error:
                    line(f"demo: {error}")
                    for daemon in (pair.source, pair.destination):
                        line(f"-- {daemon.name}\n{daemon.log()}")
                    return 1
        finally:
            if options.keep:
                shutil.copytree(folder, options.keep, dirs_exist_ok=True,
                                ignore=shutil.ignore_patterns("*.sock", "*.run", "*qmp", "*control"))
    summary(result, touches)
    result["ok"] = all(good for _, good in judged)
    for what, good in judged:
        line(f"   {'ok    ' if good else 'FAILED'} {what}")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["ok"] else 1


def main():
    """Reads the options."""
    parser = argparse.ArgumentParser(prog="demo.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--mem", type=int, default=1024, metavar="MiB", help="the guest's memory")
    parser.add_argument("--fill", type=int, default=512, metavar="MiB",
                        help="what it fills of that")
    parser.add_argument("--vcpus", type=int, default=2, metavar="N")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--keep", metavar="FOLDER", help="keep logs there")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS",
                        help="for each of the migration and the passes (300)")
    options = parser.parse_args()
    if options.vcpus not in range(1, 17):
        parser.error("--vcpus is 1 to 16")
    least = options.fill + kept_free(options) + ZERO_MB[0]
    if options.fill < FILL_LEAST_MB:
        parser.error(f"--fill must be at least {FILL_LEAST_MB}: less has arrived too soon to show "
                     "anything")
    if options.mem < least:
        parser.error(f"--fill {options.fill} wants --mem {least} or more: the guest needs some for "
                     "itself, and some that must read as zero")
    host.check_writable(parser, options.json)
    host.exit_on_sigterm()
    try:
        return run(options)
    except host.Unavailable as missing:
        line(f"demo: {missing}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
