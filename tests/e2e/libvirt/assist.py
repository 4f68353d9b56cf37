# SPDX-License-Identifier: GPL-2.0-or-later
"""`virsh migrate --live --postcopy` as ever, with us at the faults: served, and never worse for us."""

import signal
import time

from harness.postcopyd import expect

from .assisted import (Watch, assisted, brief, job_is_right, relayed, served, small)
from .hosts import USER

PEER_PORT = 16520


def goes(case, *options, epoch=1):
    """A migration in which all goes well; what there is to say about it."""
    with Watch(case.destination, case.domain.name) as watch:
        with case.migrate(*options) as migration:
            migration.wait_states(("paused", "post-copy"), ("running", "post-copy"))
            took = migration.succeed()
        passes = case.domain.verified(epoch)
        text = served(watch.last, case.domain.here)
    job_is_right(migration)
    return f"{took:.1f} s, {text}, {passes}"


def memfd_root():
    """Shared memory."""
    with assisted() as case:
        return goes(case)


def anon_root():
    """Ordinary memory; libvirt gives QEMU no /dev of its own."""
    with assisted(spec=small(backend="anon"), qemu_conf="namespaces = [ ]") as case:
        return goes(case)


def memfd_user():
    """A QEMU in libvirt's sandbox, that may not make a userfaultfd itself."""
    with assisted(USER) as case:
        return goes(case)


def anon_user():
    """The same with ordinary memory."""
    with assisted(USER, small(backend="anon")) as case:
        return goes(case)


def back_again():
    """There, and back to where it came from."""
    with assisted() as case:
        there = goes(case, "--persistent")
        case.wait_token()
        return f"{there}; back: {goes(case, epoch=2)}"


def opted():
    """Where domains are to opt in, one that did not is left to QEMU, and one that did is served."""
    opted_only = {"libvirt": {"enable": "opted"}}
    with assisted(source=opted_only, destination=opted_only, wait_token=False) as case:
        untouched(case, epoch=1)
        case.pair.b.run("postcopyctl", "enable", case.domain.name)
        case.wait_token()
        return goes(case, epoch=2)


def untouched(case, epoch=1, **settings):
    """A migration that is QEMU's alone: it succeeds, and no import served anything."""
    with Watch(case.destination, case.domain.name) as watch:
        with case.migrate("--persistent", **{"switch": True, **settings}) as migration:
            migration.succeed()
        passes = case.domain.verified(epoch)
        expect(not watch.last or not watch.last["faults"], f"import {brief(watch.last)}")
    return passes


# What goes wrong: QEMU's own stream and its own fault thread are all that is left, and suffice.


def harmed(case, harm, moment, least, more=True):
    """Does harm(case) once moment(watch) has come: faults had been ours, and were QEMU's then."""
    with Watch(case.destination, case.domain.name) as watch:
        with case.migrate() as migration:
            moment(watch)
            harm(case)
            before = watch.last["faults"]
            took = migration.succeed()
        passes = case.domain.verified()
    expect(before >= least, f"only {before} faults had been served")
    to_qemu = relayed(case.domain.here)
    expect(not more or to_qemu > 0, f"nothing was relayed after {before} faults")
    return f"{took:.1f} s, {before} faults before, {to_qemu} relayed, {passes}"


def kill(case):
    """The destination's daemon ends without a word."""
    case.destination.kill()


def killed_after(faults, *how):
    """Killed when it has read so many faults."""
    with assisted(*how) as case:
        return harmed(case, kill, lambda watch: watch.wait_faults(faults), faults)


def killed_1():
    """Killed before QEMU listens: post-copy is begun only afterwards."""
    with assisted(source={"libvirt": {"start_postcopy": 0}}) as case:
        with Watch(case.destination, case.domain.name) as watch:
            with case.migrate() as migration:
                watch.wait("is there", lambda found: True)
                case.destination.kill()
                expect(not watch.last["faults"], f"import {brief(watch.last)}")
                migration.switch()
                took = migration.succeed()
        return f"{took:.1f} s, {case.domain.verified()}"


def killed_2():
    """Killed at the first fault."""
    return killed_after(1)


def killed_3():
    """Killed after a few faults."""
    return killed_after(50)


def killed_4():
    """Killed after some more, when QEMU may make no other userfaultfd."""
    return killed_after(500, USER, small(backend="anon"))


def killed_5():
    """Killed after many."""
    return killed_after(1500)


def stopped():
    """The destination's daemon hangs; what it does when it goes on harms nobody."""
    with assisted() as case:
        daemon = case.destination
        try:
            text = harmed(case, lambda case: daemon.send_signal(signal.SIGSTOP),
                          lambda watch: watch.wait_faults(500), 500)
        finally:
            daemon.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        expect(daemon.alive() and daemon.stats() is not None, "the daemon does not go on")
        case.domain.verified()
        return text


def source_stopped():
    """The source's daemon hangs."""
    with assisted() as case:
        daemon = case.source
        try:
            return harmed(case, lambda case: daemon.send_signal(signal.SIGSTOP),
                          lambda watch: watch.wait_faults(500), 500)
        finally:
            daemon.send_signal(signal.SIGCONT)


def link_cut():
    """Nothing passes between the daemons any more, while QEMU's stream goes on."""
    def cut(case):
        where = case.pair.other(case.domain.here.host)
        for chain, port in (("INPUT", "--sport"), ("OUTPUT", "--dport")):
            where.run("iptables", "-I", chain, "-p", "tcp", port, str(PEER_PORT), "-j", "DROP")

    with assisted() as case:
        return harmed(case, cut, lambda watch: watch.wait_faults(500), 500)


def source_absent():
    """The source's daemon is gone before the migration, whose token the domain still carries."""
    with assisted() as case:
        case.source.kill()
        return untouched(case)


def source_refuses():
    """A source that gives pages back as it sends them cannot be asked for any: it is left alone."""
    with assisted() as case:
        case.domain.here.host.virsh(
            "qemu-monitor-command", case.domain.name, "--cmd",
            '{"execute":"migrate-set-capabilities","arguments":{"capabilities":'
            '[{"capability":"release-ram","state":true}]}}')
        destination = case.destination
        passes = untouched(case, switch=False)
        expect("release-ram" in destination.log(), f"no reason in {destination.log()[-500:]}")
        return passes


def hook_trouble():
    """No daemon at the destination: the hook says so, and QEMU goes on alone."""
    with assisted() as case:
        case.destination.stop()
        return untouched(case, switch=False)
