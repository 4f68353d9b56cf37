# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenarios of a run.py: functions of its modules, chosen by name on its command line."""

import argparse
import inspect
import sys

# What a program exits with for ctest to say that it could not run here.
SKIPPED = 77


def _of(module):
    """Those of a module by name: its own public functions without arguments."""
    return {f"{module.__name__}.{name}": function for name, function in vars(module).items()
            if inspect.isfunction(function) and function.__module__ == module.__name__
            and not name.startswith("_") and not inspect.signature(function).parameters}


def parser(description):
    """A parser of what every run.py takes; it may be given more."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--list", action="store_true", help="only print the names")
    made.add_argument("--expect", action="store_true",
                      help="only check that these are all there are")
    made.add_argument("names", nargs="*", metavar="MODULE[.SCENARIO]")
    return made


def choose(modules, arguments):
    """What the arguments name, all by default: functions by name, and the options of the parser's own.

    Does not return where it was only asked for names, or there is none of that name.
    """
    options = arguments.parse_args()
    known = {name: function for module in modules for name, function in _of(module).items()}
    if options.list:
        print("\n".join(known))
        sys.exit(0)
    if options.expect:
        differing = set(known) ^ set(options.names)
        print(f"not in both lists: {differing}" if differing else "complete")
        sys.exit(1 if differing else 0)
    wanted = {name: function for name, function in known.items() if not options.names
              or any(name == given or name.startswith(f"{given}.") for given in options.names)}
    if not wanted:
        arguments.error(f"no such scenario: {' '.join(options.names)}")
    return wanted, options
