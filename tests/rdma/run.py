# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs scenarios inside the soft-RoCE guest: run.py [--list | --expect NAMES | --results FOLDER] [SCENARIO …]

Every scenario is a process of its own, with a time limit, and finds the network as the guest's was at first.
With --results, FOLDER/SCENARIO.json holds {"status", "seconds", "output"}.  Exits with 1 if any failed, but
with 0 if results are kept: whoever reads them judges.
"""

import inspect
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
from world import SLOW, host  # noqa: E402

MODULES = (programs, place, choice, trouble)
LIMIT_SECONDS = 45 * SLOW
SKIPPED = 77


def scenarios():
    """All of them by name: public functions without arguments."""
    return {f"{module.__name__}.{name}": function for module in MODULES
            for name, function in vars(module).items()
            if inspect.isfunction(function) and function.__module__ == module.__name__
            and not name.startswith("_") and not inspect.signature(function).parameters}


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
        status = SKIPPED
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
    sys.exit(status)


def await_child(pid, seconds):
    """Its exit status; None if it had to be ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGTERM)
    time.sleep(1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def end_left_over(group):
    """What a scenario started and did not end."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def restore_network():
    """The device, as network.sh made it."""
    links = subprocess.run(["rdma", "link"], capture_output=True, text=True, check=False).stdout
    subprocess.run(["ip", "link", "set", "dummy0", "up", "mtu", "9000"], check=True)
    if "rxe0" not in links:
        subprocess.run(["rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "dummy0"], check=True)


def run(name, scenario, results):
    """One scenario; its status."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if not pid:
            perform(scenario, output)
        status = await_child(pid, LIMIT_SECONDS)
        end_left_over(pid)
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    if status is None:
        said, status = f"{said}\nno end after {LIMIT_SECONDS:.0f} s", 1
    seconds = time.monotonic() - begin
    verdict = {0: "ok", SKIPPED: "skipped"}.get(status, "FAILED")
    print(f"{verdict:8}{name:36}{seconds:6.1f} s  {said if status else said[-200:]}", flush=True)
    if results:
        made = results / f"{name}.json"
        made.write_text(json.dumps({"status": status, "seconds": seconds, "output": said}),
                        encoding="utf-8")
    restore_network()
    return status


def main(words):
    """Runs what the words name, all by default."""
    known = scenarios()
    if words == ["--list"]:
        print("\n".join(known))
        return 0
    if words[:1] == ["--expect"]:
        differing = set(known) ^ set(words[1:])
        print(f"not in both lists: {differing}" if differing else "complete")
        return 1 if differing else 0
    results = None
    if words[:1] == ["--results"]:
        results, words = Path(words[1]), words[2:]
    wanted = [name for name in known
              if not words or name in words or name.split(".")[0] in words]
    if not wanted:
        print(f"no such scenario: {words}", file=sys.stderr)
        return 2
    if not os.environ.get("RDMA_GUEST"):
        print("run.py: only in the soft-RoCE guest: tests/guest/rdma/boot.py", file=sys.stderr)
        return 2
    statuses = [run(name, known[name], results) for name in wanted]
    return 1 if not results and any(status not in (0, SKIPPED) for status in statuses) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
