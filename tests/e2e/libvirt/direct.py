# SPDX-License-Identifier: GPL-2.0-or-later
"""Direct mode through libvirt: QEMU's stream carries devices only, all memory comes through us."""

import functools
import signal
import time

from harness.manager import Manager
from harness.postcopyd import expect

from .assisted import small
from .directed import Drive, direct, ignore_shared_is_off
from .hosts import USER
from .namespace import Program, wait_for


def goes(case, *options, epoch=1):
    """A migration in which all goes well; what there is to say about it."""
    with Drive(case, *options) as drive:
        said = drive.succeed()
        left = "shut off" if drive.source.host in case.domain.defined else "gone"
        states = [state for state, _ in drive.states()]
        expect(states == [left, "running"], f"states {states}")
    return f"{said}, {case.domain.verified(epoch)}"


def once_more(at):
    """From now on it looks at all its memory, and all is right."""
    at.wait_ticks(2)
    tick = at.log.last("TICK")
    tick = at.wait_passes(tick["passes"] + 1, tick["epoch"], 30)
    expect(not at.bad() and not at.bad_records(), f"{at.bad()} bad words: {at.bad_records()[:3]}")
    return f"{tick['passes']} passes"


def memfd():
    """Shared memory."""
    with direct() as case:
        return goes(case)


def memfd_user():
    """A QEMU in libvirt's sandbox."""
    with direct(user=USER) as case:
        return goes(case)


def undefine_persist():
    """The domain is defined where it goes, and no more where it was; and then goes back."""
    with direct() as case:
        here, there = case.pair.hosts
        case.domain.defined = {there}
        said = goes(case, "--persistent", "--undefine-source")
        info = there.virsh("dominfo", case.domain.name).stdout
        expect("Persistent:     yes" in info, info)
        case.domain.defined = {here}
        return f"{said}; back: {goes(case, '--persistent', '--undefine-source', epoch=2)}"


def save_afterwards():
    """What arrived is saved and restored with all its memory: nothing of the migration is left on."""
    with direct() as case:
        said = goes(case)
        at = case.domain.here
        file = "/var/lib/libvirt/images/saved"
        at.host.virsh("save", case.domain.name, file)
        size = at.host.path(file).stat().st_size
        expect(size > case.domain.spec.fill_mb << 20, f"saved {size} bytes")
        at = case.domain.here = case.domain.at(at.host)
        at.host.virsh("restore", file)
        return f"{said}; saved {size >> 20} MiB; {once_more(at)}"


# What is refused, or goes wrong: the guest runs on where it is, and can leave afterwards.


def runs_on(case):
    """All its memory is still right, and it can leave."""
    once_more(case.domain.here)
    return goes(case)


def refused_private():
    """Ordinary memory cannot be served by us."""
    with direct(spec=small(backend="anon")) as case, Drive(case) as drive:
        said = drive.fail("shared")
        once_more(case.domain.here)
        return said


def destination_daemon_down():
    """No daemon at the destination: nothing begins."""
    with direct() as case:
        case.destination.stop()
        with Drive(case) as drive:
            said = drive.fail(drive.destination.host.address)
        case.destination.start()
        runs_on(case)
        return said


def destination_refuses():
    """The destination's hook leaves a domain alone that did not opt in; once it has, it goes."""
    opted = {"libvirt": {"enable": "opted"}}
    with direct(destination=opted) as case:
        with Drive(case) as drive:
            said = drive.fail("libvirt", "postcopyctl enable")
        case.domain.here.host.run("postcopyctl", "enable", case.domain.name)
        runs_on(case)
        return said


def transport_refused():
    """RDMA or nothing, by the driver's word and by the destination's configuration: nothing begins."""
    with direct() as case:
        case.destination.stop()
        case.destination.configure(peer={"transport": "rdma"})
        case.destination.start()
        with Drive(case, "--transport", "rdma") as drive:
            said = drive.fail("RDMA", "source")
        with Drive(case) as drive:
            drive.fail("off at the destination", "[rdma] networks")
        once_more(case.domain.here)
        return f"{said}; {goes(case, '--transport', 'tcp')}"


def interrupted():
    """Ctrl-C before the switchover."""
    with direct() as case:
        with Drive(case) as drive:
            drive.wait_phase("switchover")
            drive.begun.send_signal(signal.SIGINT)
            said = drive.fail("interrupted", "source")
            expect(drive.begun.returncode == 130, f"exit {drive.begun.returncode}")
        runs_on(case)
        return said


def driver_killed():
    """postcopyctl dies at any moment: one side runs, with all its memory, and nothing is left on."""
    with direct() as case:
        moved = 0
        for delay in (0.0, 0.4, 0.55, 0.7):
            moved += _killed_after(case, delay)
        return f"{moved} of 4 had gone to their destination"


def destination_daemon_killed():
    """The destination's daemon dies at any moment and comes back: one side runs, with all its memory."""
    def harm(drive, case):
        daemon = case.destination
        daemon.kill()
        daemon.start()
        drive.wait()

    with direct() as case:
        moved = sum(_killed_after(case, delay, harm) for delay in (0.2, 0.45, 0.6, 0.7))
        return f"{moved} of 4 had gone to their destination"


def source_daemon_killed():
    """The source's daemon dies when its QEMU is gone, and nobody else has the rest of the memory."""
    with direct(destination={"import": {"limit": "80Mbit"}}) as case, \
            Manager(case.domain.here.host.folder / "notify") as manager:
        case.source.stop()
        case.source.starter = functools.partial(manager.start, popen=Program)
        case.source.start()
        case.source.wait_libvirt()
        expect(_killed_after(case, 0, functools.partial(_kill_source, manager)), "it did not move")
        case.source.wait("empty store", lambda: not manager.names())
        case.source.stop()


def _kill_source(manager, drive, case):
    wait_for("guest at its destination alone", lambda: [state for state, _ in drive.states()] ==
             ["shut off", "running"], 60)
    wait_for("export in the store", lambda: len(manager.names()) > 1, 10)
    source, destination = case.source, case.destination
    found = destination.imported(case.domain.name)
    expect(found["present_bytes"] < found["populated_bytes"], f"nothing is missing: {found}")
    source.kill()
    source.start()
    expect(source.exported(case.domain.name)["state"] == "sealed", "not exported again")
    drive.wait()


def _kill_driver(drive, _):
    drive.begun.kill()
    drive.begun.wait()


def _killed_after(case, delay, harm=_kill_driver):
    """Whether it moved all the same."""
    name = case.domain.name
    with Drive(case, "--persistent") as drive:
        drive.wait_phase("switchover")
        time.sleep(delay)
        harm(drive, case)
        states = _settled(case, drive)
    moved = states[1] == "running"
    if moved:
        case.domain.here = drive.destination
        case.domain.defined.add(drive.destination.host)
    once_more(case.domain.here)
    ignore_shared_is_off(case.domain.here.host, name)
    return moved


def _settled(case, drive):
    """The states once libvirt and both daemons have nothing more to do."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        states = [state for state, _ in drive.states()]
        job = drive.source.host.job(case.domain.name).get("Job type", "None")
        exports = case.source.stats()["exports"]
        over = all(one["state"] in ("done", "cancelled", "fenced") for one in exports)
        if sorted(states) in (["gone", "running"], ["running", "shut off"]) and over and \
                job == "None":
            return states
        time.sleep(0.1)
    raise AssertionError(f"never settled: {states}, job {job}, {exports}")
