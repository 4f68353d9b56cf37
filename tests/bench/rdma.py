# SPDX-License-Identifier: GPL-2.0-or-later
"""An import by RDMA beside one by TCP, in the soft-RoCE guest (tests/guest/rdma).

docs/PERFORMANCE.md tells how each figure is measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from fault import cell, machine, show_table
from parts.common import host, postcopyd

HERE = Path(__file__).resolve().parent
GUEST = HERE.parent / "guest" / "rdma"
sys.path.insert(0, str(GUEST))

# pylint: disable=wrong-import-position
import boot  # noqa: E402

SECONDS_A_ROUND, SECONDS = 600, 120

# What each ratio must be at most.
AT_MOST = {"source_cpu_vs_tcp": 0.1, "demand_vs_floor": 1.4, "demand_vs_floor_asleep": 1.4,
           "demand_vs_floor_instructions": 1.15}

# The guests that rdma_guest.py runs in.  Three CPUs: with one to spare beside the guest's thread, a resolver and the
# stream have one each, without which no resolver looks before it sleeps.
GUESTS = {"clock": {"cpus": 3}, "instructions": {"counting": True}}


def image():
    """The guest, made if it is not there."""
    built = postcopyd.BUILD / "tests" / "guest"
    folder = built / "rdma-image"
    subprocess.run([sys.executable, "-B", GUEST / "mkimage.py", built / "rdma-init", folder,
                    built / "linux-image"], check=True)
    return folder


def measured(what, rounds):
    """What rdma_guest.py found in that guest."""
    with tempfile.TemporaryDirectory(prefix="postcopy-rdma-") as folder:
        guest = boot.Guest(image(), folder, memory=4096, **GUESTS[what])
        words = [sys.executable, "-B", HERE / "rdma_guest.py", "/run/guest/result.json", what, rounds]
        status = guest.run(words, SECONDS + rounds * SECONDS_A_ROUND)
        if status:
            sys.exit(f"bench.sh rdma: the guest ended with {status}")
        return json.loads((Path(folder) / "result.json").read_text())


def merged(results):
    """What all guests found, as if it were one."""
    return {
        "guest": results[0]["guest"],
        "ratios": {name: value for result in results for name, value in result["ratios"].items()},
        "tables": [table for result in results for table in result["tables"]],
        "notes": [note for result in results for note in result["notes"]],
        "samples": {name: values for result in results for name, values in result["samples"].items()},
    }


def show(result):
    """Tables, and each ratio beside what it has to be."""
    for table in result["tables"]:
        show_table(table)
    for note in result["notes"]:
        print(f"  {note}")
    print(f"\n{'ratio':34}{'value':>10}  must be")
    for name, value in result["ratios"].items():
        most = AT_MOST.get(name)
        verdict = f"  at most {most}: {'met' if value <= most else 'MISSED'}" if most else ""
        print(f"{name:34}{cell(value):>10}{verdict}")


def main():
    """Reads the options."""
    parser = argparse.ArgumentParser(prog="bench.sh rdma", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write everything there")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    host.check_writable(parser, options.json)
    host.exit_on_sigterm()
    result = {"bench": "rdma", "machine": machine(), "rounds": options.rounds, "at_most": AT_MOST,
              **merged([measured(what, options.rounds) for what in GUESTS])}
    show(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
