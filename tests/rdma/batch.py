# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenarios of run.py in one boot of the soft-RoCE guest, and what became of each.

    batch.py run IMAGE FOLDER SCENARIO …  boots the guest, runs all of them, leaves their results in FOLDER
    batch.py result FOLDER SCENARIO       prints the result of one, and exits with its status
"""

import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "guest" / "rdma"))

# pylint: disable=wrong-import-position
import boot  # noqa: E402

# All of them take about two minutes on two slow cores.
SECONDS = 600

SKIPPED = 77


def run(image, folder, scenarios):
    """0 if the guest came to the end of the list, whatever it found."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    guest = boot.Guest(image, folder)
    words = [sys.executable, "-B", HERE / "run.py", "--results", "/run/guest/results", *scenarios]
    status = guest.run(words, SECONDS)
    if status:
        print(f"batch.py: the batch ended with {status}", file=sys.stderr)
    return status


def result(folder, scenario):
    """The status of one scenario; 1 if there is no result, or it was skipped: that guest lacks nothing."""
    path = folder / "results" / f"{scenario}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"batch.py: {scenario} left no result: {error}", file=sys.stderr)
        return 1
    print(found["output"])
    return 1 if found["status"] == SKIPPED else found["status"]


def main(words):
    """Reads the arguments."""
    if len(words) > 3 and words[0] == "run":
        return run(Path(words[1]), Path(words[2]), words[3:])
    if len(words) == 3 and words[0] == "result":
        return result(Path(words[1]), words[2])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
