# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs scenarios inside the soft-RoCE guest: run.py [--list | --expect NAMES | --results FOLDER] [SCENARIO …]

Every scenario is a process of its own, with a time limit, and finds the network as the guest's was at first.
With --results, FOLDER/SCENARIO.json holds {"status", "seconds", "output"}.  Exits with 1 if any failed, but
with 0 if results are kept: whoever reads them judges.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

# pylint: disable=wrong-import-position
import choice  # noqa: E402
import place  # noqa: E402
import programs  # noqa: E402
import trouble  # noqa: E402
from harness import scenarios  # noqa: E402
from soft_roce import DEVICE  # noqa: E402
from world import SLOW, host  # noqa: E402

# They take the device away.
ALONE = ("choice.auto", "trouble.device_removed")
AT_ONCE = 2

MODULES = (programs, place, choice, trouble)
LIMIT_SECONDS = 45 * SLOW
TOO_LONG = 124


def perform(scenario, output):
    """The child: never returns."""
    os.setsid()
    for fd in (1, 2):
        os.dup2(output.fileno(), fd)
    host.exit_on_sigterm()
    status = 1
    try:
        said = scenario()
        print(said or "", flush=True)
        status = 0
    except host.Unavailable as missing:
        print(f"skipped: {missing}", flush=True)
        status = scenarios.SKIPPED
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
    sys.exit(status)


class Running:
    """A scenario under way."""

    def __init__(self, name, scenario):
        self.name = name
        self.begin = time.monotonic()
        self._output = tempfile.TemporaryFile()  # pylint: disable=consider-using-with
        self.pid = os.fork()
        if not self.pid:
            perform(scenario, self._output)

    def poll(self):
        """Its status once it has ended, or is too late; None before."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - self.begin < LIMIT_SECONDS:
            return None
        os.kill(self.pid, signal.SIGTERM)
        time.sleep(1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return TOO_LONG

    def finish(self, status, results):
        """Ends what it left over, and says and keeps how it went."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._output.seek(0)
        said = self._output.read().decode(errors="replace").strip()
        self._output.close()
        if status == TOO_LONG:
            said = f"{said}\nno end after {LIMIT_SECONDS:.0f} s"
        seconds = time.monotonic() - self.begin
        verdict = {0: "ok", scenarios.SKIPPED: "skipped"}.get(status, "FAILED")
        print(f"{verdict:8}{self.name:36}{seconds:6.1f} s  {said if status else said[-200:]}", flush=True)
        if results:
            kept = {"status": status, "seconds": seconds, "output": said}
            (results / f"{self.name}.json").write_text(json.dumps(kept), encoding="utf-8")


def restore_network():
    """The device, as network.sh made it."""
    links = subprocess.run(["rdma", "link"], capture_output=True, text=True, check=False).stdout
    if DEVICE not in links:
        subprocess.run(["rdma", "link", "add", DEVICE, "type", "rxe", "netdev", "dummy0"], check=True)


def run_all(wanted, results):
    """Two at a time, but for those that change the network of all; their statuses."""
    waiting = sorted(wanted, key=lambda name: name in ALONE)
    running, statuses = [], []
    while waiting or running:
        alone = waiting and waiting[0] in ALONE
        if waiting and len(running) < (1 if alone else AT_ONCE):
            name = waiting.pop(0)
            running.append(Running(name, wanted[name]))
        for scenario in list(running):
            status = scenario.poll()
            if status is not None:
                scenario.finish(status, results)
                running.remove(scenario)
                statuses.append(status)
                if scenario.name in ALONE:
                    restore_network()
        time.sleep(0.02)
    return statuses


def main():
    """Runs what the arguments name."""
    arguments = scenarios.parser(__doc__)
    arguments.add_argument("--results", metavar="FOLDER", type=Path, help="keep how each went")
    wanted, options = scenarios.choose(MODULES, arguments)
    if not os.environ.get("RDMA_GUEST"):
        print("run.py: only in the soft-RoCE guest: tests/guest/rdma/boot.py", file=sys.stderr)
        return 2
    statuses = run_all(wanted, options.results)
    failed = any(status not in (0, scenarios.SKIPPED) for status in statuses)
    return 1 if failed and not options.results else 0


if __name__ == "__main__":
    sys.exit(main())
