# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs end-to-end scenarios: python3 run.py [--list] [MODULE[.SCENARIO] …]

Exits with 0 if all were good, 1 if any failed, 77 if none could run here, with the reason.
"""

import os
import sys
import time
import traceback

import assist_client
import balloon
import beside
import client
import memory
import recovery
import switchover
import unaware
from harness import host, scenarios
from harness.postcopyd import preload, program
from libvirt import agent, ahead, assist, direct, onward, plain

MODULES = (memory, switchover, recovery, balloon, client, assist_client, unaware, beside, plain, agent, ahead,
           assist, onward, direct)


def check_host():
    """What every scenario needs."""
    if os.geteuid() != 0:
        raise host.Unavailable("not root: userfaultfd and other processes' memory are off limits")
    host.testguest()
    host.tsc_khz()
    program("postcopyd")
    preload()


def run(name, scenario):
    """One scenario; 'ok', 'skipped' or 'FAILED'."""
    begin = time.monotonic()
    try:
        verdict, text = "ok", scenario()
    except host.Unavailable as missing:
        verdict, text = "skipped", str(missing)
    except Exception as error:  # pylint: disable=broad-except
        traceback.print_exc()
        verdict, text = "FAILED", str(error)
    print(f"{verdict:8}{name:32}{time.monotonic() - begin:6.1f} s  {text}", flush=True)
    return verdict


def main():
    """Runs what the arguments name."""
    wanted, _ = scenarios.choose(MODULES, scenarios.parser(__doc__))
    host.exit_on_sigterm()
    try:
        check_host()
    except host.Unavailable as missing:
        print(f"skipped: {missing}")
        return scenarios.SKIPPED
    verdicts = [run(name, scenario) for name, scenario in wanted.items()]
    if "FAILED" in verdicts:
        return 1
    return 0 if "ok" in verdicts else scenarios.SKIPPED


if __name__ == "__main__":
    sys.exit(main())
