# SPDX-License-Identifier: GPL-2.0-or-later
"""Verifies a Promela model exhaustively with spin: python3 run.py MODEL.pml

The model has to hold, and each variant of it that a BROKEN_ define makes has to fail: a property that
no mistake violates shows nothing. Exits with 77 where there is no spin, with the reason.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SKIPPED = 77


def verify(model, define=None):
    """The verifier's own report of the model, or of a variant."""
    with tempfile.TemporaryDirectory() as folder:
        defines = [f"-D{define}"] if define else []
        for command in (["spin", *defines, "-a", str(model)],
                        ["gcc", "-O2", "-w", "-DSAFETY", "-DMEMLIM=2048", "-o", "pan", "pan.c"]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        pan = subprocess.run(["./pan", "-m1000000"], cwd=folder, capture_output=True, text=True,
                             timeout=300, check=False)
        return pan.stdout + pan.stderr


def holds(report):
    """All states were visited and none was wrong."""
    errors = re.search(r"errors: (\d+)", report)
    if not errors or "max search depth too small" in report or "out of memory" in report:
        raise SystemExit(f"not verified:\n{report}")
    # An error ends the search early; without one it has to have been the whole of it.
    if errors[1] == "0" and "Search not completed" in report:
        raise SystemExit(f"not exhaustive:\n{report}")
    return errors[1] == "0"


def main(path):
    """The model and its broken variants."""
    model = Path(path).resolve()
    if not shutil.which("spin") or not shutil.which("gcc"):
        print("skipped: there is no spin here (apt-get install spin)")
        return SKIPPED
    broken = sorted(set(re.findall(r"\bBROKEN_[A-Z_]*[A-Z]\b", model.read_text(encoding="utf-8"))))
    report = verify(model)
    good = holds(report)
    states = re.search(r"(\d+) states, stored", report)
    print(f"{model.name}: {states[1]} states, {'holds' if good else 'FAILS:'}")
    if not good:
        print(report)
    for define in broken:
        noticed = not holds(report := verify(model, define))
        why = re.search(r"pan:1: (.*)", report)
        print(f"{define}: {'noticed: ' + why[1] if noticed and why else 'NOT NOTICED'}")
        good = good and noticed
    if not broken:
        print("no variant is broken: nothing shows that the model can fail")
    return 0 if good and broken else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
