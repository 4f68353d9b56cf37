# SPDX-License-Identifier: GPL-2.0-or-later
"""The fault path, part by part, each beside what it replaces and beside its floor.

docs/PERFORMANCE.md tells how each figure is measured.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

from parts.common import Failure, Options, Skipped, host

PARTS = ("wakeups", "stream", "demand", "queue", "churn", "link", "crowd")

# What each ratio must be at most, or at least.
AT_MOST = {"wakeups_per_fault_max": 1.05, "time_vs_stock_read_w8": 0.5, "p50_40_vs_1": 1.15,
           "stream_cpu_vs_classic": 0.5, "demand_cpu_vs_classic": 0.8, "urgent_under_bulk": 4,
           "demand_vs_floor": 1.3, "cpu_per_fault_64_vs_1": 1.2}
AT_LEAST = {"queue_vs_eventfd": 1.15, "churn_vs_quiet": 0.95, "bulk_link_share": 0.8,
            "stream_vs_floor": 0.75}


def machine():
    """What this ran on."""
    return {"kernel": platform.release(), "cpus": os.cpu_count(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def cell(value):
    """A table's cell."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return str(value)


def show_table(table):
    """One table, each column as wide as it needs."""
    rows = [table["head"], *([cell(value) for value in row] for row in table["rows"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table["head"]))]
    print(f"\n{table['title']}")
    for row in rows:
        print("  " + row[0].ljust(widths[0]) + "".join(
            f"  {text.rjust(width)}" for text, width in zip(row[1:], widths[1:])))


def verdict(name, value):
    """Met or missed, and what it had to be."""
    if name in AT_MOST:
        return f"at most {AT_MOST[name]}", value <= AT_MOST[name]
    return f"at least {AT_LEAST[name]}", value >= AT_LEAST[name]


def show_ratios(ratios):
    """The last table; every ratio there should be."""
    print(f"\n{'ratio':26}{'value':>10}  {'must be':16}")
    for name in (*AT_MOST, *AT_LEAST):
        if ratios.get(name) is None:
            print(f"{name:26}{'-':>10}  not measured")
            continue
        wanted, met = verdict(name, ratios[name])
        print(f"{name:26}{ratios[name]:10.3f}  {wanted:16}{'met' if met else 'MISSED'}")


def measure(name, options):
    """One part; None, having said why, if it cannot be measured here."""
    begin = time.monotonic()
    print(f"\n=== {name}", flush=True)
    try:
        part = importlib.import_module(f"parts.{name}").run(options)
    except (Skipped, host.Unavailable) as why:
        print(f"not measured: {why}", flush=True)
        return None, str(why)
    for table in part.tables:
        show_table(table)
    for note in part.notes:
        print(f"  {note}")
    for ratio, value in part.ratios.items():
        print(f"  {ratio}: {cell(value)}")
    print(f"  ({time.monotonic() - begin:.0f} s)", flush=True)
    return part, None


def run(options):
    """All parts; 1 if one of them broke, which a missed target is not."""
    settings = Options(rounds=options.rounds, quick=options.quick)
    result = {"bench": "fault", "machine": machine(), "rounds": options.rounds,
              "quick": options.quick, "ratios": {}, "at_most": AT_MOST, "at_least": AT_LEAST,
              "parts": {}, "skipped": {}}
    failed = 0
    for name in PARTS:
        if options.only and options.only not in name:
            continue
        try:
            part, skipped = measure(name, settings)
        except Exception as error:  # pylint: disable=broad-exception-caught
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            result["skipped"][name] = f"failed: {error}"
            failed += 1
            continue
        if skipped:
            result["skipped"][name] = skipped
            continue
        result["ratios"].update(part.ratios)
        result["parts"][name] = {"tables": part.tables, "notes": part.notes,
                                 "samples": part.samples}
    show_ratios(result["ratios"])
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if failed else 0


def main():
    """Reads the options."""
    parser = argparse.ArgumentParser(prog="bench.sh fault", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write everything there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", metavar="TEXT", help="only parts with this in their names: "
                        + ", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="less memory, for a first look")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    host.check_writable(parser, options.json)
    host.exit_on_sigterm()
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
