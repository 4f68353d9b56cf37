# SPDX-License-Identifier: GPL-2.0-or-later
"""Exports whose VM has left, and that outlive their daemon in the service manager's store."""

import fcntl
import os
import signal
import time

from lent import SIZE, Lent, _all_read, _prepared, _reply, _why
from wire import Client, Destination, Peer, text
from world import SLOW, Daemon, World, expect, mentions

from harness.manager import Manager  # world has said where it is


class Managed(Daemon):
    """A daemon that a service manager starts."""

    def __init__(self, folder, name, manager, **settings):
        self.starter = manager.start
        super().__init__(folder, name, **settings)


class _Started:
    """A world whose source daemon a manager starts."""

    tells = True

    def make(self, name, settings):
        """One of the daemons."""
        if name != "a":
            return super().make(name, settings)
        self.manager = self.add(Manager(self.folder / "notify", self.tells))
        return Managed(self.folder, name, self.manager, **settings)


class Kept(_Started, Lent):
    """A VM without a client that leaves."""

    def __init__(self, kind="shared", tells=True):
        self.tells = tells
        super().__init__(kind)

    def moved(self, end=True):
        """It has left, and its process has ended; (token, seal)."""
        return _moved(self, end)

    def again(self, token, seal, name="vm"):
        """Attaches to the next daemon as its destination does, and gets the same seal."""
        control, urgent = self.shows(token, name), self.peer()
        found, secret = control.attached()
        expect(found == seal, f"another seal: {found:#x}")
        urgent.join(control.session, secret, Peer.URGENT)
        urgent.expect(Peer.JOINED)
        return control, urgent

    def shows(self, token, name="vm"):
        """A peer that has shown a token."""
        peer = self.peer()
        peer.send(Peer.ATTACH, self.uuid.bytes + text(name) + token)
        return peer

    def done(self, control):
        """Its destination has everything: nothing of it is kept."""
        control.send(Peer.RELEASED)
        expect(self.ended() == "done", "not done")
        self.source.wait("empty store", lambda: not self.manager.names())


class Plain(Kept):
    """The same without a manager."""

    def make(self, name, settings):
        return World.make(self, name, settings)


def _moved(world, end=True):
    destination = world.add(Destination())
    with _prepared(world, destination) as client:
        invitation = destination.invited()
        destination.accept()
        expect(_reply(client) == {}, "not prepared")
        world.control, world.urgent = world.attach_with(invitation.token, "vm")
        world.monitor.running, world.monitor.status = False, "finish-migrate"
        answer = client.ask(op="seal", vm="vm")
        expect("seal" in answer, answer)
        world.control.wait(Peer.SEALED)
    if end:
        world.vm.process.kill()
        world.vm.process.wait()
    return invitation.token, int(answer["seal"], 16)


def crash():
    """The daemon is killed, twice; its successors serve the memory of a process that is gone."""
    with Kept() as world:
        token, seal = world.moved()
        names = world.manager.names()
        expect(len(names) == 2, names)
        expect(all(str(world.uuid) in name for name in names), names)
        for _ in range(2):
            world.source.restart()
            expect(world.source.exported("vm")["state"] == "sealed", world.source.exported("vm"))
            expect(world.manager.names() == names, world.manager.names())
            control, urgent = world.again(token, seal)
            _all_read(urgent, 0, 0)
        world.done(control)
        world.source.restart()
        expect(not world.source.exported("vm"), "exported though it is done")


def assisted():
    """In assist mode, too; its destination may know it by another name."""
    with Kept() as world:
        code, why, token = world.ask()
        expect(code == 0, why)
        control, _ = world.attach_with(token)
        world.monitor.stopped_in_postcopy()
        control.send(Peer.SEAL)
        seal = control.expect(Peer.SEALED).take("Q")
        world.source.restart()
        expect(world.source.exported("vm")["mode"] == "assist", "another mode")
        control, urgent = world.again(token, seal, "other-name")
        _all_read(urgent, 0, 0)
        world.done(control)


def private():
    """What goes with its process is not kept."""
    with Kept("both") as world:
        world.sealed()
        expect(not world.manager.names(), world.manager.names())


def two_regions_of_a_file():
    """The manager keeps a file once, however many regions lie in it."""
    with Kept("halves") as world:
        token, seal = world.moved()
        expect(len(world.manager.names()) == 2, world.manager.names())
        world.source.restart()
        control, urgent = world.again(token, seal)
        _all_read(urgent, 0, 0)
        _all_read(urgent, 1, 1)
        world.done(control)


def stopped():
    """Stopped as by an operator, under a manager that keeps what it has: it ends at once, and the next goes on."""
    with Kept() as world:
        token, seal = world.moved()
        begin = time.monotonic()
        expect(world.source.stop() == 0, "it did not end well")
        expect(time.monotonic() - begin < 5 * SLOW, "it waited")
        world.source.start()
        control, urgent = world.again(token, seal)
        _all_read(urgent, 0, 0)
        world.done(control)


def _waits(world):
    """SIGTERM: it says what it waits for, and serves on."""
    world.source.process.send_signal(signal.SIGTERM)
    said = world.source.wait_log("not stopping", "vm")
    time.sleep(1)
    expect(world.source.alive(), "it ended")
    _all_read(world.urgent, 0, 0)
    return said


def _ends(world):
    expect(world.source.process.wait(10 * SLOW) == 0, "it did not end well")


def not_kept_over_a_stop():
    """A manager that would forget it all when the service is stopped is asked for time instead."""
    with Kept(tells=False) as world:
        token, seal = world.moved()
        world.source.restart()
        world.control, world.urgent = world.again(token, seal)
        mentions(_waits(world), "unknown part", "restarting")
        expect(any("EXTEND_TIMEOUT_USEC" in said for said in world.manager.states), "no time")
        world.control.send(Peer.RELEASED)
        _ends(world)
        expect(not world.manager.names(), world.manager.names())


def without_a_manager():
    """Without one it does not end before all has arrived; or at a second signal."""
    with Plain() as world:
        world.moved()
        mentions(_waits(world), "is lost")
        world.control.send(Peer.RELEASED)
        _ends(world)
    with Plain() as world:
        world.moved()
        _waits(world)
        world.source.process.send_signal(signal.SIGTERM)
        _ends(world)


def process_alive():
    """Its process still lives: it is watched by the next daemon as it was by the last one."""
    with Kept() as world:
        token, seal = world.moved(end=False)
        world.source.restart()
        control, urgent = world.again(token, seal)
        time.sleep(0.5)
        _all_read(urgent, 0, 0)
        world.vm.run()
        mentions(_why(control), "vCPUs ran")
        world.source.wait("empty store", lambda: not world.manager.names())


def runs_while_away():
    """It ran while there was no daemon: nobody ever reads it again."""
    with Kept() as world:
        token, _ = world.moved(end=False)
        world.source.kill()
        world.vm.run()
        time.sleep(0.5)
        world.source.start()
        world.source.wait_log("fenced", "vCPUs ran")
        body = world.shows(token).expect(Peer.ATTACHED)
        expect(body.take("I") == Peer.FENCED_CODE, "it may be read")
        mentions(body.text(), "vCPUs ran")
        world.source.wait("empty store", lambda: not world.manager.names())


def _damages():
    def blob(change, seal=True):
        def make(fd):
            content = bytearray(os.pread(fd, 1 << 16, 0))
            change(content)
            other = os.memfd_create("blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.write(other, content)
            if seal:
                _seal(other)
            return [other]
        return "-0", make

    def flip(at):
        def change(content):
            content[at] ^= 1
        return change

    def cut(fd):
        other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        os.ftruncate(other, SIZE)
        return [other]

    def disk(_):
        other = os.open("/var/tmp", os.O_TMPFILE | os.O_RDWR)
        os.truncate(other, 2 * SIZE)
        return [other]

    yield "damaged", *blob(flip(100))
    yield "damaged", *blob(flip(-1))
    yield "damaged", *blob(lambda content: content.clear())
    yield "damaged", *blob(lambda content: content.__delitem__(slice(50, None)))
    yield "damaged", *blob(lambda content: None, seal=False)
    yield "does not fit", "-1", lambda fd: []
    yield "missing", "-0", lambda fd: []
    yield "twice", "-1", lambda fd: [os.dup(fd), os.dup(fd)]
    yield "does not fit", "-1", cut
    yield "does not fit", "-1", disk


def _seal(fd):
    """As the daemon seals it."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW |
                fcntl.F_SEAL_WRITE)


def damaged():
    """What is not as it was stored is not exported, and not kept any longer; the daemon says so and serves on."""
    for number, (word, name, make) in enumerate(_damages()):
        with Kept() as world:
            token, _ = world.moved()
            world.source.kill()
            world.manager.replace(name, make)
            world.source.start()
            mentions(world.source.wait_log("cannot be exported again"), word, str(world.uuid))
            expect(world.source.log().count("cannot be exported again") == 1, "said more than once")
            expect(not world.source.exported("vm"), f"exported all the same: {number}")
            mentions(world.shows(token).refusal()[1], "token")
            world.source.wait("empty store", lambda: not world.manager.names())


def undone():
    """What is fenced by hand is not kept either."""
    with Kept() as world:
        world.moved()
        expect(len(world.manager.names()) == 2, world.manager.names())
        with Client(world.source.socket) as client:
            expect(client.ask(op="abandon", vm="vm") == {}, "abandon")
        world.source.wait("empty store", lambda: not world.manager.names())


def manager_hangs():
    """A manager that answers nothing costs the guest 2 s, and nothing else."""
    with Kept() as world:
        world.manager.deaf = True
        begin = time.monotonic()
        world.moved()
        took = time.monotonic() - begin
        expect(2 < took < 10 * SLOW, f"{took:.1f} s")
        world.source.wait_log("does not say that it took")
        _all_read(world.urgent, 0, 0)
        world.manager.deaf = False
        world.source.wait("store", lambda: len(world.manager.names()) == 2)
        world.done(world.control)
        return f"{took:.1f} s"


class _Clients(_Started, World):
    pass


def client_gone_too():
    """A VM with a client: its VMM and its daemon are both gone, and its destination has all the same."""
    with _Clients(proxied=True) as world:
        world.proxy.slow(8 << 20)
        source, destination = world.vms(mem=48, fill=48, threads=4)
        world.move(source, destination)
        world.destination.wait_import("vm", lambda i: i["present_bytes"] > 12 << 20)
        expect(len(world.manager.names()) == 2, world.manager.names())
        world.source.kill()
        source.kill()
        destination.wait_event("paused")
        world.source.start()
        world.proxy.undisturbed()
        destination.wait_event("released")
        destination.verified(2)
        world.source.wait_log("its destination has everything")
        world.source.wait("empty store", lambda: not world.manager.names())


def client_comes_back():
    """The VMM lives: it finds the export that the manager kept, and there is only one."""
    with _Clients(proxied=True) as world:
        world.proxy.slow(8 << 20)
        source, destination = world.vms(mem=48, fill=48, threads=4)
        world.move(source, destination)
        world.destination.wait_import("vm", lambda i: i["present_bytes"] > 12 << 20)
        world.source.restart()
        destination.wait_event("paused")
        world.proxy.undisturbed()
        expect(len(world.source.stats("vm")["exports"]) == 1, world.source.stats("vm"))
        world.complete(source, destination)
        world.source.wait("empty store", lambda: not world.manager.names())
