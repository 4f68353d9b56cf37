# SPDX-License-Identifier: GPL-2.0-or-later
"""The head start: nobody limits post-copy, so our stream goes before QEMU's, which is held back."""

import re
import signal

from harness.postcopyd import expect

from .assisted import Watch, assisted, brief, relayed, small
from .hosts import USER

WIRE = "400mbit"  # too slow for memory to come twice
MIDWAY = 2000     # pages: on a busy machine it is soon found out that ours is not the faster stream
ATTEMPTS = 3
LARGE = {"mem_mb": 1024, "fill_mb": 512}  # QEMU is not through before a busy source's daemon serves
LONG = {"import": {"head_start_ms": 10000}}
AHEAD = "ahead of QEMU's stream"
SLOW = "less than 200 MB/s"  # a busy machine may be


def held_ms(case):
    """How long the preload held QEMU's stream back, by its own words."""
    found = re.search(r"held for (\d+) ms", case.domain.here.client_log())
    expect(found, f"the preload does not say: {case.domain.here.client_log()[-600:]}")
    return int(found[1])


def by_stream(found):
    """Pages that our stream brought."""
    return found["pages"]["by_stream"]


def goes_ahead(case):
    """What the guest filled is brought by us before QEMU gets to it."""
    daemon = case.destination
    with Watch(daemon, case.domain.name) as watch:
        with case.migrate(postcopy=0) as migration:
            took = migration.succeed()
        passes = case.domain.verified()
    pages, held = by_stream(watch.last), held_ms(case)
    filled = case.domain.spec.fill_mb << 8
    expect(pages > filled // 4 or SLOW in daemon.log(), f"{pages} of {filled} pages: {brief(watch.last)}")
    expect(held > 0, f"QEMU's stream was not held while {pages} pages came")
    expect(AHEAD in daemon.log(), f"{daemon.name} does not say so: {brief(watch.last)}")
    return f"{took:.1f} s, {pages} of {filled} pages ahead, held for {held} ms, {passes}"


def goes_beside(case, **settings):
    """Faults are served, and nothing is brought or held besides."""
    daemon = case.destination
    with Watch(daemon, case.domain.name) as watch:
        with case.migrate(**settings) as migration:
            migration.succeed()
        passes = case.domain.verified()
    expect(watch.last and watch.last["faults"] > 0, f"no fault served: {brief(watch.last)}")
    expect(AHEAD not in daemon.log() and held_ms(case) == 0,
           f"a head start all the same: {brief(watch.last)}")
    return f"{watch.last['faults']} faults, {passes}"


def memfd():
    """Shared memory."""
    with assisted(spec=small(**LARGE)) as case:
        return goes_ahead(case)


def anon_user():
    """Ordinary memory, in libvirt's sandbox."""
    with assisted(USER, small(**LARGE, backend="anon")) as case:
        return goes_ahead(case)


def limited():
    """Whoever limits post-copy's bandwidth has no second stream beside it."""
    with assisted() as case:
        return goes_beside(case)


def switched_off():
    """Nor has who does not want it."""
    with assisted(spec=small(**LARGE), destination={"import": {"head_start_ms": 0}}) as case:
        return goes_beside(case, postcopy=0)


def slow_wire():
    """Where the link is what a guest waits for, that is found out, and QEMU's stream goes on."""
    with assisted(spec=small(fill_mb=160)) as case:
        case.pair.slow_wire(WIRE)
        with Watch(case.destination, case.domain.name) as watch:
            with case.migrate(postcopy=0) as migration:
                took = migration.succeed()
            passes = case.domain.verified()
        held, log = held_ms(case), case.source.log()  # it runs there now
        expect(held < 1000, f"held for {held} ms: {brief(watch.last)}")
        expect(SLOW in log or not by_stream(watch.last), f"it was not found out: {brief(watch.last)}")
        return f"{took:.1f} s, {by_stream(watch.last)} pages ahead, held for {held} ms, {passes}"


def harmed(case, harm):
    """Does harm(case) while QEMU's stream is held: it goes on, and suffices."""
    with Watch(case.destination, case.domain.name) as watch:
        with case.migrate(postcopy=0) as migration:
            watch.wait("goes ahead", lambda found: by_stream(found) >= MIDWAY)
            harm(case)
            took = migration.succeed()
        passes = case.domain.verified()
    held = held_ms(case)
    expect(held < 1000, f"held for {held} ms")
    return held, (f"{took:.1f} s, {by_stream(watch.last)} pages ahead, held for {held} ms, "
                  f"{relayed(case.domain.here)} relayed, {passes}")


def while_held(scenario):
    """Once more where QEMU's stream came only after the harm, as on a busy machine it may."""
    for _ in range(ATTEMPTS):
        held, said = scenario()
        if held > 0:
            return said
    raise AssertionError(f"QEMU's stream was not held: {said}")


def _ends():
    """The destination's daemon ends in the middle of it."""
    with assisted(spec=small(**LARGE), destination=LONG) as case:
        return harmed(case, lambda case: case.destination.kill())


def hangs(choose):
    """A daemon hangs in the middle of it, and goes on when all is over."""
    with assisted(spec=small(**LARGE), destination=LONG) as case:
        daemon = choose(case)
        try:
            return harmed(case, lambda case: daemon.send_signal(signal.SIGSTOP))
        finally:
            daemon.send_signal(signal.SIGCONT)


def killed():
    """The destination's daemon ends."""
    return while_held(_ends)


def stopped():
    """The destination's daemon hangs."""
    return while_held(lambda: hangs(lambda case: case.destination))


def source_stopped():
    """The source's does: nothing comes from our stream any more."""
    return while_held(lambda: hangs(lambda case: case.source))
