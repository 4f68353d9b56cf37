# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs scenarios with real daemons and the tests' VMM: python3 run.py [--list] [MODULE[.SCENARIO] …]

Exits with 0 if all were good, 1 if any failed, 77 if none could run here, with the reason.
"""

import os
import sys
import time
import traceback

import answers
import assist
import awaited
import bad_client
import bad_hello
import bad_peer
import bad_setup
import ctl_host
import domains
import hook
import kept
import lent
import limit
import pace
import regions
import removed
import restart
import rules
import severed
import size
import transfer
import transport
import vcpus
from harness import scenarios  # world has said where it is
from world import host

MODULES = (transfer, restart, severed, size, limit, lent, pace, bad_client, bad_hello, bad_peer, bad_setup, domains,
           removed, rules, regions, vcpus, answers, assist, awaited, hook, kept,
           ctl_host, transport)


def run(name, scenario):
    """One scenario; 'ok', 'skipped' or 'FAILED'."""
    begin = time.monotonic()
    try:
        verdict, said = "ok", scenario()
    except host.Unavailable as missing:
        verdict, said = "skipped", str(missing)
    except Exception as error:  # pylint: disable=broad-except
        traceback.print_exc()
        verdict, said = "FAILED", str(error)[:300]
    print(f"{verdict:8}{name:36}{time.monotonic() - begin:6.1f} s  {said or ''}", flush=True)
    return verdict


def main():
    """Runs what the arguments name."""
    wanted, _ = scenarios.choose(MODULES, scenarios.parser(__doc__))
    if os.geteuid() != 0:
        print("skipped: not root: userfaultfd and other processes' memory are off limits")
        return scenarios.SKIPPED
    host.exit_on_sigterm()
    verdicts = [run(name, scenario) for name, scenario in wanted.items()]
    if "FAILED" in verdicts:
        return 1
    return 0 if "ok" in verdicts else scenarios.SKIPPED


if __name__ == "__main__":
    sys.exit(main())
