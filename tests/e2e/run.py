# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs end-to-end scenarios: python3 run.py [--list] [MODULE[.SCENARIO] …]

Exits with 0 if all were good, 1 if any failed, 77 if none could run here, with the reason.
"""

import argparse
import inspect
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
from harness import host
from harness.postcopyd import preload, program
from libvirt import agent, ahead, assist, direct, onward, plain

MODULES = (memory, switchover, recovery, balloon, client, assist_client, unaware, beside, plain, agent, ahead,
           assist, onward, direct)
SKIPPED = 77


def scenarios():
    """All of them by name: functions without arguments that say what they do."""
    return {f"{module.__name__}.{name}": function for module in MODULES
            for name, function in vars(module).items()
            if inspect.isfunction(function) and function.__module__ == module.__name__
            and not inspect.signature(function).parameters}


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
    """Reads the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="only print the names")
    parser.add_argument("--expect", action="store_true",
                        help="only check that these are all there are")
    parser.add_argument("names", nargs="*", metavar="MODULE[.SCENARIO]")
    options = parser.parse_args()
    known = scenarios()
    if options.list:
        print("\n".join(known))
        return 0
    if options.expect:
        differing = set(known) ^ set(options.names)
        print(f"not in both lists: {differing}" if differing else "complete")
        return 1 if differing else 0
    wanted = [name for name in known if not options.names
              or any(name == given or name.startswith(f"{given}.") for given in options.names)]
    if not wanted:
        parser.error("no such scenario")
    host.exit_on_sigterm()
    try:
        check_host()
    except host.Unavailable as missing:
        print(f"skipped: {missing}")
        return SKIPPED
    verdicts = [run(name, known[name]) for name in wanted]
    if "FAILED" in verdicts:
        return 1
    return 0 if "ok" in verdicts else SKIPPED


if __name__ == "__main__":
    sys.exit(main())
