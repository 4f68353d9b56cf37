# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs without a client: a monitor of our own says what a QEMU would, a process has the memory."""

import contextlib
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

import lone
from monitor import Monitor, bound_socket
from wire import PAGE, Client, Destination, Peer, text
from world import MIB, SLOW, World, expect, mentions

REFUSED, UNKNOWN_VM, TOKEN, BUSY = 11, 3, 4, 5
SIZE = 4 * MIB


class Lone:
    """The process; a context manager.  connection: where its end of a TCP connection goes to."""

    def __init__(self, monitor, kind="anonymous"):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            self._theirs = listener.accept()[0]
        self.connection = "127.0.0.1:%d" % self._theirs.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, Path(lone.__file__), str(SIZE), kind, str(ours.fileno())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[ours.fileno()],
            preexec_fn=monitor.listen)  # pylint: disable=subprocess-popen-preexec-fn
        ours.close()
        self.regions = []
        for line in self.process.stdout:
            if line == "READY\n":
                break
            address, size, self.tid = map(int, line.split())
            self.regions.append((address, size))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._theirs.close()

    def tell(self, line):
        """An order."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def run(self):
        """Its vCPU runs from now on."""
        self.tell("run")

    def hang_up(self):
        """Its migration to the destination is over; the destination sees the end of it."""
        self.tell("hang up")
        expect(self._theirs.recv(1) == b"", "the connection goes on")


class Lent(World):
    """A daemon to which a VM was lent, and what the VM consists of."""

    def __init__(self, kind="anonymous", lend=True):
        super().__init__()
        listener = bound_socket(self.folder / "qmp")
        self.vm = self.add(Lone(listener, kind))
        self.monitor = self.add(Monitor(listener, self.vm.regions, [self.vm.tid]))
        self.uuid = uuid.uuid4()
        self.token = secrets.token_bytes(32)
        if lend:
            answer = self.request(op="lend", vm="vm", uuid=str(self.uuid),
                                  monitor=self.monitor.path, token=self.token.hex())
            expect(answer == {}, answer)

    def request(self, **words):
        """The answer to an operator."""
        with Client(self.source.socket, timeout=30) as client:
            return client.ask(**words)

    def peer(self, reserved=True):
        """A greeted connection to the daemon, as of a daemon that runs as root, or of anybody."""
        return self.add(Peer(self.source.address, timeout=20 * SLOW, reserved=reserved)).greet()

    def ask(self, **changes):
        """(code, text, token), as its destination's daemon asks, but for what differs."""
        words = {"uuid": self.uuid.bytes, "name": "other-name", "token": self.token,
                 "connection": self.vm.connection, **changes}
        return self.peer().ask(**words)

    def refused(self, code, *words, **changes):
        """Asking fails with this code and these words."""
        found, why, token = self.ask(**changes)
        expect(found == code, f"code {found}, {why}, not {code}")
        expect(token == bytes(32), "a token came with the refusal")
        mentions(why, *words)
        expect(not self.source.exported("vm"), "there is an export all the same")
        return why

    def attach(self, name="other-name"):
        """Asks and attaches: the control connection, and one that reads."""
        code, why, token = self.ask()
        expect(code == 0, why)
        return self.attach_with(token, name)

    def attach_with(self, token, name="other-name"):
        """The same with the export's token."""
        control, urgent = self.peer(), self.peer()
        control.send(Peer.ATTACH, self.uuid.bytes + text(name) + token)
        _, secret = control.attached()
        urgent.join(control.session, secret, Peer.URGENT)
        urgent.expect(Peer.JOINED)
        return control, urgent

    def sealed(self):
        """Attached, and its guest stopped and sealed."""
        control, urgent = self.attach()
        self.monitor.stopped_in_postcopy()
        control.send(Peer.SEAL)
        control.expect(Peer.SEALED)
        return control, urgent

    def ended(self, timeout=10.0):
        """Waits until the export is over; how."""
        return self.source.wait("end of the export", lambda: (
            found := self.source.exported("vm")) and found["state"] in
            ("cancelled", "fenced", "done") and found["state"], timeout * SLOW)


def _all_read(urgent, region, number):
    """Every page is what the process wrote."""
    wanted = dict(lone.filled(SIZE, number))
    for first in range(0, SIZE // PAGE, 512):
        urgent.read(region, first, 512)
        for page, content in enumerate(urgent.pages(512), first):
            expect(content == wanted.get(page, bytes(PAGE)), f"page {page} of region {region}")


def served():
    """All that a process maps privately is read, and nothing before its guest has stopped."""
    with Lent() as world:
        control, urgent = world.attach()
        found = world.source.exported("vm")
        expect(found["mode"] == "assist" and found["state"] == "exported", found)
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.UNSEALED, "read before the seal")
        control.send(Peer.SEAL)
        world.monitor.stopped_in_postcopy()
        control.expect(Peer.SEALED)
        _all_read(urgent, 0, 0)
        control.send(Peer.RELEASED)
        expect(world.ended() == "done", "not done")


def shared():
    """Shared and private memory, each read its way."""
    with Lent("both") as world:
        _, urgent = world.sealed()
        _all_read(urgent, 0, 0)
        _all_read(urgent, 1, 1)
        expect(world.source.exported("vm")["memory_bytes"] == 2 * SIZE, "another size")


def not_stopped():
    """A guest that runs is not sealed, however often its destination asks for it."""
    with Lent() as world:
        control, urgent = world.attach()
        world.monitor.running, world.monitor.status = True, "running"
        world.monitor.migration = "postcopy-active"
        for _ in range(50):
            control.send(Peer.SEAL)
        time.sleep(2.5)
        asked = world.monitor.asked.count("query-status")
        expect(20 < asked < 250, f"the monitor was asked {asked} times")
        world.monitor.running, world.monitor.migration = False, "active"
        control.send(Peer.SEAL)
        time.sleep(0.5)
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.UNSEALED, "it was sealed")
        world.monitor.migration = "completed"
        control.expect(Peer.SEALED)
        return f"asked {asked} times"


def gone_elsewhere():
    """Whom it was to go to once cannot have it sealed when it stops for another reason."""
    with Lent() as world:
        control, urgent = world.attach()
        world.vm.hang_up()
        world.monitor.migration = "completed"
        world.monitor.running, world.monitor.status = False, "postmigrate"
        control.send(Peer.SEAL)
        control.wait(Peer.CANCEL)
        expect(world.ended() == "cancelled", "not cancelled")
        expect(urgent.receive() is None, "the one that reads goes on")


def aborted():
    """The end of its migration ends it, though its destination holds on to it."""
    for change in ("hang up", "cancelled"):
        with Lent() as world:
            control, _ = world.attach()
            time.sleep(4)
            expect(world.source.exported("vm")["state"] == "exported", "ended while it migrates")
            if change == "hang up":
                world.vm.hang_up()
            else:
                world.monitor.migration = change
            control.wait(Peer.CANCEL)
            expect(world.ended() == "cancelled", "not cancelled")


def runs_meanwhile():
    """One that stood still for a moment only is not sealed."""
    with Lent() as world:
        control, urgent = world.attach()

        def run():
            world.monitor.running, world.monitor.status = True, "running"
        world.monitor.stopped_in_postcopy()
        world.monitor.after_status = run
        control.send(Peer.SEAL)
        time.sleep(1)
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.UNSEALED, "it was sealed")


def without_postcopy():
    """Nor has a guest moved on whose migration cannot be post-copy."""
    with Lent() as world:
        control, urgent = world.attach()
        world.monitor.capabilities["postcopy-ram"] = False
        world.monitor.stopped_in_postcopy()
        control.send(Peer.SEAL)
        time.sleep(1)
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.UNSEALED, "it was sealed")


def refused():
    """Whoever asks is told what is wrong."""
    with Lent() as world:
        monitor, count = world.monitor, len(world.monitor.asked)
        said = [world.refused(TOKEN, "token", token=bytes(32)),
                world.refused(UNKNOWN_VM, "no VM with that uuid", uuid=bytes(range(16)))]
        expect(len(monitor.asked) == count, "its monitor was asked for a stranger")
        said += [world.refused(REFUSED, "no connection to", connection="127.0.0.1:1"),
                 world.refused(REFUSED, "no address", connection="nonsense")]
        monitor.migration = ""
        said.append(world.refused(REFUSED, "not being migrated"))
        monitor.migration = "failed"
        said.append(world.refused(REFUSED, "not being migrated", "failed"))
        monitor.migration = "active"
        monitor.capabilities["postcopy-ram"] = False
        said.append(world.refused(REFUSED, "postcopy-ram"))
        monitor.capabilities.update({"postcopy-ram": True, "release-ram": True})
        said.append(world.refused(REFUSED, "release-ram"))
        monitor.capabilities["release-ram"] = False
        monitor.vcpus = [world.vm.tid, os.getpid()]
        said.append(world.refused(REFUSED, "not of its process", str(world.vm.process.pid)))
        monitor.vcpus = [world.vm.tid]
        said.append(world.refused(REFUSED, "no connection to", connection="127.0.0.1:2"))
        monitor.regions.append(("ram9", 9 << 32, 1 << 20, SIZE))
        said.append(world.refused(6, "ram9", "mapped"))
        monitor.regions.pop()
        expect(len(set(said)) == len(said), said)
        expect(world.request(op="unlend", vm="vm") == {}, "not unlent")
        world.refused(UNKNOWN_VM, "not lent")


def names_another():
    """A QEMU that says what is true of another VM's process gets nothing of that one's memory."""
    with Lent() as world:
        listener = bound_socket(world.folder / "other")
        other = world.add(Lone(listener))
        world.add(Monitor(listener, other.regions, [other.tid]))
        monitor = world.monitor
        monitor.vcpus = [other.tid]
        monitor.regions = [(name, guest, *place) for (name, guest, *_), place
                           in zip(monitor.regions, other.regions)]
        said = world.refused(REFUSED, "not of its process", str(world.vm.process.pid),
                             connection=other.connection)
        monitor.vcpus = [world.vm.tid]
        world.refused(REFUSED, "no connection to", connection=other.connection)
        return said


def by_ordinary_user():
    """Somebody who read the token in the domain's metadata, as users may, gets nothing."""
    with Lent() as world:
        peer = world.peer(reserved=False)
        peer.send(Peer.ASK, world.uuid.bytes + text("vm") + world.token + text(world.vm.connection))
        body = peer.expect(Peer.BYE)
        expect(body.take("I") == REFUSED, "refused for another reason")
        said = body.text()
        mentions(said, "below 1024")
        expect(not world.source.exported("vm"), "there is an export all the same")
        return said


def monitor_hangs():
    """A monitor that does not answer costs time, and nothing else."""
    with Lent() as world:
        world.monitor.silent.set()
        begin = time.monotonic()
        world.refused(REFUSED, "QEMU")
        expect(time.monotonic() - begin < 18 * SLOW, "it took too long")
        return f"{time.monotonic() - begin:.1f} s"


def runs_again():
    """A source that runs again is fenced."""
    with Lent() as world:
        control, urgent = world.sealed()
        world.vm.run()
        body = control.wait(Peer.FENCED)
        expect(body.take("I") == Peer.FENCED_CODE, "another code")
        mentions(body.text(), "vCPUs ran")
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.FENCED_CODE, "read after the fence")
        expect(world.ended() == "fenced", "not fenced")


def process_dies():
    """Before the seal that undoes it."""
    with Lent("shared") as world:
        control, _ = world.attach()
        world.vm.process.send_signal(signal.SIGKILL)
        control.wait(Peer.CANCEL)
        expect(world.ended() == "cancelled", "not cancelled")


def process_dies_sealed():
    """After the seal shared memory stays, as long as somebody reads it; private memory is gone."""
    with Lent("both") as world:
        control, _ = world.sealed()
        world.vm.process.send_signal(signal.SIGKILL)
        mentions(_why(control), "memory with it")
        expect(world.ended() == "fenced", "not fenced")
    with Lent("shared") as world:
        control, urgent = world.sealed()
        world.vm.process.send_signal(signal.SIGKILL)
        time.sleep(3)
        _all_read(urgent, 0, 0)
        control.send(Peer.RELEASED)
        expect(world.ended() == "done", "not done")


def unread():
    """Whoever only stays attached does not keep the memory of a process that has ended."""
    with Lent("shared") as world:
        control, urgent = world.sealed()
        world.vm.process.send_signal(signal.SIGKILL)
        for second in range(66):
            if second == 10:
                _all_read(urgent, 0, 0)
            control.send(Peer.PING)
            time.sleep(1)
        expect(world.source.exported("vm")["state"] == "sealed", "given up while it was read")
        begin = time.monotonic()
        while world.source.exported("vm")["state"] != "fenced":
            expect(time.monotonic() - begin < 60, "it is still kept")
            control.send(Peer.PING)
            time.sleep(1)


def _why(control):
    body = control.wait(Peer.FENCED)
    body.take("I")
    return body.text()


def nobody_comes():
    """An export that nobody attaches to ends by itself."""
    with Lent() as world:
        code, why, token = world.ask()
        expect(code == 0, why)
        expect(world.ended(timeout=15) == "cancelled", "not cancelled")
        peer = world.peer()
        peer.send(Peer.ATTACH, world.uuid.bytes + text("vm") + token)
        mentions(peer.refusal()[1], "token")


def asked_twice():
    """A new one takes the place of one that is not sealed, and of none that is read."""
    with Lent() as world:
        first, _ = world.attach()
        control, urgent = world.attach()
        first.wait(Peer.CANCEL)
        world.monitor.stopped_in_postcopy()
        control.send(Peer.SEAL)
        control.expect(Peer.SEALED)
        code, why, _ = world.ask()
        expect(code == BUSY, f"{code}: {why}")
        _all_read(urgent, 0, 0)
        control.socket.close()
        urgent.socket.close()
        world.source.wait_log("destination lost")
        control, urgent = world.attach()
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.UNSEALED, "the new one is sealed already")
        control.send(Peer.SEAL)
        control.expect(Peer.SEALED)
        _all_read(urgent, 0, 0)


@contextlib.contextmanager
def _prepared(world, listener, **words):
    """A migration that an operator prepares, and the INVITE for it."""
    with Client(world.source.socket, timeout=30) as client:
        words = {"op": "prepare", "libvirt": True, "uuid": str(world.uuid),
                 "pid": world.vm.process.pid, "destination": listener.address, **words}
        raw = json.dumps(words).encode()
        client.send(Client.OPERATOR, struct.pack("<II", 0, len(raw)) + raw)
        yield client


def _reply(client):
    kind, body = client.receive()
    expect(kind == Client.REPLY, f"message {kind}")
    _, length = body.take("II")
    return json.loads(body.bytes(length))


def prepared():
    """Direct mode: its destination awaits it, and its monitor is asked for the seal."""
    with Lent("both") as world, Destination() as destination:
        name = {"id": "ram1", "guest_address": 1 << 32, "length": SIZE, "destination_address": 7}
        with _prepared(world, destination, regions=[name]) as client:
            invitation = destination.invited()
            expect(invitation.name == "vm" and invitation.uuid == world.uuid.bytes, "another VM")
            expect(invitation.flags == 1, f"flags {invitation.flags}")
            expect([region[0] for region in invitation.regions] == ["ram1"], invitation.regions)
            destination.accept()
            expect(_reply(client) == {}, "not prepared")
            found = world.source.exported("vm")
            expect(found["mode"] == "direct", found)
            control, urgent = world.attach_with(invitation.token, "vm")
            expect(world.ask()[0] == BUSY, "asked for while it leaves")
            mentions(client.ask(op="seal", vm="vm")["error"], "not stopped", "running")
            control.send(Peer.SEAL)
            world.monitor.running, world.monitor.status = False, "finish-migrate"
            time.sleep(0.3)
            urgent.read(0, 0, 1)
            expect(urgent.error_code() == Peer.UNSEALED, "its destination had it sealed")
            answer = client.ask(op="seal", vm=str(world.uuid))
            expect(len(answer["seal"]) == 16, answer)
            _all_read(urgent, 0, 1)
            expect(client.ask(op="running", vm="vm") == {}, "running")
            mentions(client.ask(op="cancel", vm="vm")["error"], "gate is open")
        world.vm.process.kill()
        time.sleep(3)
        _all_read(urgent, 0, 1)
        control.send(Peer.RELEASED)
        expect(world.ended() == "done", "not done")


def prepared_wrongly():
    """What cannot come through us is refused; whoever drives and goes undoes it."""
    with Lent("both") as world, Destination() as destination:
        def error(**words):
            with _prepared(world, destination, **words) as client:
                return _reply(client)["error"]
        mentions(error(pid=os.getpid()), "process", str(os.getpid()))
        mentions(error(uuid=str(uuid.uuid4())), "no VM with that uuid")
        mentions(error(uuid="x"), "uuid")
        mentions(error(destination="nowhere"), "HOST:PORT")
        mentions(error(regions=[{"id": "ram0", "guest_address": 0, "length": SIZE}]), "ram0",
                 "not shared memory")
        mentions(error(regions=[{"id": "ram1", "guest_address": 0, "length": SIZE}]), "no RAM")
        twice = {"id": "ram1", "guest_address": 1 << 32, "length": SIZE}
        mentions(error(regions=[twice, twice]), "no RAM")
        expect(not world.source.exported("vm"), "there is an export")
        with _prepared(world, destination) as client:
            destination.invited()
            destination.accept()
            expect(_reply(client) == {}, "not prepared")
        time.sleep(1)
        expect(world.source.exported("vm")["state"] == "exported", "undone, though it migrates")
        world.monitor.migration = "cancelled"
        expect(world.ended() == "cancelled", "not cancelled")


def drifts():
    """Nobody drives it any more, but its guest moves on: it is sealed all the same."""
    with Lent("shared") as world, Destination() as destination:
        with _prepared(world, destination) as client:
            invitation = destination.invited()
            destination.peer.send(Peer.AWAITED)
            expect(_reply(client) == {}, "not prepared")
            control, urgent = world.attach_with(invitation.token, "vm")
            destination.accept()
            world.source.wait_log("is armed")
            expect(client.ask(op="cancel", vm="vm") == {}, "cancel")
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.UNSEALED, "sealed while it runs")
        world.monitor.running, world.monitor.status = False, "finish-migrate"
        control.wait(Peer.SEALED)
        _all_read(urgent, 0, 0)


@contextlib.contextmanager
def _armed():
    """A migration of libvirt's whose destination is armed: (world, control, urgent, operator)."""
    with Lent("shared") as world, Destination() as destination:
        with _prepared(world, destination) as client:
            invitation = destination.invited()
            destination.peer.send(Peer.AWAITED)
            expect(_reply(client) == {}, "not prepared")
            control, urgent = world.attach_with(invitation.token, "vm")
            destination.accept()
            world.source.wait_log("is armed")
            yield world, control, urgent, client


def paused_meanwhile():
    """That somebody paused the guest is not its switchover, whoever asks."""
    with _armed() as (world, control, urgent, client):
        world.monitor.running, world.monitor.status = False, "paused"
        mentions(client.ask(op="seal", vm="vm")["error"], "not stopped", "paused")
        expect(client.ask(op="cancel", vm="vm") == {}, "cancel")
        time.sleep(4)
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.UNSEALED, "sealed while it is paused")
        world.monitor.migration = "device"
        control.wait(Peer.SEALED)


def failed_while_paused():
    """A guest that was paused stays so when its migration fails; that is undone all the same."""
    with _armed() as (world, control, _, client):
        world.monitor.running, world.monitor.status = False, "paused"
        expect(client.ask(op="cancel", vm="vm") == {}, "cancel")
        world.monitor.migration = "failed"
        control.wait(Peer.CANCEL)
        expect(world.ended() == "cancelled", "not cancelled")


def failed_after_seal():
    """What is sealed is fenced when its migration fails: by an attached destination's guest only if it runs."""
    with _armed() as (world, control, urgent, client):
        world.monitor.running, world.monitor.status = False, "finish-migrate"
        expect("seal" in client.ask(op="seal", vm="vm"), "not sealed")
        control.wait(Peer.SEALED)
        world.monitor.migration = "failed"
        time.sleep(8)
        _all_read(urgent, 0, 0)
        control.socket.close()
        urgent.socket.close()
        expect(world.ended(timeout=15) == "fenced", "not fenced")
    with _armed() as (world, control, urgent, client):
        world.monitor.running, world.monitor.status = False, "finish-migrate"
        expect("seal" in client.ask(op="seal", vm="vm"), "not sealed")
        control.wait(Peer.SEALED)
        world.monitor.running, world.monitor.status = True, "running"
        body = control.wait(Peer.FENCED)
        body.take("I")
        mentions(body.text(), "runs after the seal")
        urgent.read(0, 0, 1)
        expect(urgent.error_code() == Peer.FENCED_CODE, "read after the fence")


def process_ends_first():
    """Its guest was so quick that its process has ended before the seal: the memory is final."""
    with Lent("shared") as world, Destination() as destination:
        with _prepared(world, destination) as client:
            invitation = destination.invited()
            destination.peer.send(Peer.AWAITED)
            _reply(client)
            control, urgent = world.attach_with(invitation.token, "vm")
            destination.accept()
            world.source.wait_log("is armed")
            world.vm.process.kill()
            control.wait(Peer.SEALED)
            _all_read(urgent, 0, 0)
            expect(len(client.ask(op="seal", vm="vm")["seal"]) == 16, "no seal told")


def taken_back():
    """Cancelled before its destination has the VM: that hears it by the end of the invitation."""
    with Lent("shared") as world, Destination() as destination:
        with _prepared(world, destination) as client:
            destination.invited()
            destination.peer.send(Peer.AWAITED)
            _reply(client)
            expect(client.ask(op="cancel", vm="vm") == {}, "cancel")
            expect(destination.peer.receive() is None, "the invitation stands")
        expect(world.ended() == "cancelled", "not cancelled")


def bad_requests():
    """Operators hear what is wrong with what they lend."""
    with Lent(lend=False) as world:
        good = {"op": "lend", "vm": "vm", "uuid": str(world.uuid), "monitor": "/x",
                "token": "ab" * 32}
        for change in ({"token": "ab"}, {"token": "xy" * 32}, {"uuid": "1"}, {"vm": ""},
                       {"vm": 7}, {"token": None}, {"vm": "a\nb"}):
            answer = world.request(**{**good, **change})
            mentions(answer.get("error", str(answer)), "lend: ")
        mentions(world.request(**{**good, "monitor": "relative"})["error"], "path of a QMP socket")
        mentions(world.request(**{**good, "monitor": "/" + "x" * 200})["error"], "107 bytes")
        mentions(world.request(op="unlend", vm="vm")["error"], "is lent")
        expect(world.request(**good) == {}, "not lent")
        world.refused(REFUSED, "cannot connect", "/x", token=bytes.fromhex("ab" * 32))
        expect(world.request(op="unlend", vm=str(world.uuid)) == {}, "not unlent")
