# SPDX-License-Identifier: GPL-2.0-or-later
"""64 threads on one page, over and over: one fetch each time, and everybody wakes."""

import json
import subprocess

from .common import Failure, Part, Skipped, postcopyd


def run(options):
    """The stress test's program, with more rounds."""
    rounds = 5000 if options.quick else 100000
    program = postcopyd.BUILD / "tests/stress/stress_once"
    if not program.is_file():
        raise Skipped(f"{program} is not built")
    done = subprocess.run([program, "crowd", str(rounds)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise Failure(f"stress_once: {done.returncode} {done.stderr.strip()[-500:]}")
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    part = Part(samples=found)
    part.table(f"{found['threads']} threads on one page", ["", ""],
               [["rounds", found["rounds"]],
                ["fetches a round, most", found["fetches_most"]],
                ["fetches a round, least", found["fetches_least"]],
                ["touches that came back", found["visits"]],
                ["wake-ups lost", found["rounds"] * found["threads"] - found["visits"]],
                ["seconds", found["seconds"]]])
    if found["fetches_most"] != 1 or found["fetches_least"] != 1:
        raise Failure(f"a page was not fetched once: {found}")
    return part
