# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs scenarios with real daemons and the tests' VMM: python3 run.py [--list] [SCENARIO …]

Exits with 0 if all were good, 1 if any failed, 77 if none could run here, with the reason.
"""

import inspect
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
from world import host

MODULES = (transfer, restart, severed, size, limit, lent, pace, bad_client, bad_hello, bad_peer, bad_setup, domains,
           removed, rules, regions, vcpus, answers, assist, awaited, hook, kept,
           ctl_host, transport)
SKIPPED = 77


def scenarios():
    """All of them by name: public functions without arguments."""
    return {f"{module.__name__}.{name}": function for module in MODULES
            for name, function in vars(module).items()
            if inspect.isfunction(function) and function.__module__ == module.__name__
            and not name.startswith("_") and not inspect.signature(function).parameters}


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
    wanted = [name for name in known
              if not words or name in words or name.split(".")[0] in words]
    if not wanted:
        print(f"no such scenario: {words}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("skipped: not root: userfaultfd and other processes' memory are off limits")
        return SKIPPED
    host.exit_on_sigterm()
    verdicts = [run(name, known[name]) for name in wanted]
    if "FAILED" in verdicts:
        return 1
    return 0 if "ok" in verdicts else SKIPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
