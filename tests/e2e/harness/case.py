# SPDX-License-Identifier: GPL-2.0-or-later
"""What the scenarios have in common."""

import contextlib
import time

from . import host
from .postcopyd import Pair, expect
from .proxy import Proxy
from .vm import Spec

# What a migration changes and has to put back.
CAPABILITIES = ("x-ignore-shared", "return-path", "pause-before-switchover", "events",
                "postcopy-ram")


def small(**changes):
    """A guest that is quick to fill, with memory that it never filled."""
    return Spec(**{"mem_mb": 256, "fill_mb": 128, "zero_mb": 32, "zero_epoch": 1, "vcpus": 2,
                   **changes})


@contextlib.contextmanager
def pair(**settings):
    """A Pair in a folder of its own; what its daemons said is shown if the scenario fails."""
    with host.workdir() as folder, Pair(folder, **settings) as both:
        try:
            yield both
        except BaseException:
            for daemon in (both.source, both.destination):
                print(f"-- daemon {daemon.name}\n{daemon.log()}", flush=True)
            for path in sorted(both.folder.glob("*.client")):
                print(f"-- {path.name}\n{path.read_text()}", flush=True)
            raise


@contextlib.contextmanager
def proxied(**settings):
    """A Pair and the Proxy through which the destination reaches the source."""
    with pair(**settings) as both, Proxy(both.source.address) as proxy:
        both.source.stop()
        both.source.configure(peer={"advertise": proxy.address})
        both.source.start()
        yield both, proxy


def capabilities(vm):
    """Those that a migration touches, as they are now."""
    return {entry["capability"]: entry["state"]
            for entry in vm.qmp.cmd("query-migrate-capabilities")
            if entry["capability"] in CAPABILITIES}


def verified(guest, passes=2, timeout=90.0):
    """The guest has looked at all its memory on the destination, and all was right."""
    guest.wait_passes(passes, epoch=1, timeout=timeout)
    guest.wait_ticks(2)
    no_bad_word(guest)
    if guest.spec.zero_mb:
        expect(guest.log.last("TICK")["zero_pages"] > 0, "zero memory was not looked at")
    return f"{guest.log.last('TICK')['passes']} passes"


def no_bad_word(guest):
    """Nothing the guest has looked at so far was wrong."""
    expect(guest.bad() == 0, f"{guest.bad()} bad words: {guest.bad_records()[:3]}")


def runs_on(guest):
    """A source that was not migrated goes on, and its memory is right."""
    deadline = time.monotonic() + 5
    while guest.status() != "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    expect(guest.status() == "running", f"the source is {guest.status()}")
    guest.wait_ticks(5)
    no_bad_word(guest)


def restored(before, *guests):
    """Capabilities are what they were."""
    for guest in guests:
        if guest.alive():
            now = capabilities(guest)
            expect(now == before, f"{guest.name}: capabilities {now}, were {before}")


def mentions(message, *words):
    """A message for people has one line, and these words."""
    lines = message.strip().splitlines()
    expect(len(lines) == 1, f"not one line: {message!r}")
    for word in words:
        expect(word.lower() in message.lower(), f"no '{word}' in: {message}")
