# SPDX-License-Identifier: GPL-2.0-or-later
"""What operators are answered: readable and whole, whatever clients, peers and monitors say."""

import contextlib
import grp
import json
import os
import socket
import struct
import subprocess
import threading
import time

from bad_client import as_nobody
from wire import Client, text
from world import MIB, SLOW, Vmm, World, expect, mentions, postcopyd


def names_not_utf8():
    """A client whose name or whose problem no JSON could hold is refused, and everybody's status goes on."""
    with World() as world:
        for name, problem, region in ((b"\xff", "", "r"), (b"M\xfchle", "", "r"),
                                      ("x", b"half \xc3", "r"), ("x", "", b"\xed\xa0\x80")):
            with Client(world.source.socket) as client:
                client.send(Client.HELLO, Client.hello(
                    name, [Client.region(region, 1 << 30, MIB)], problem=problem))
                with Client(world.source.socket) as operator:
                    expect(not operator.ask(op="status")["sessions"], "it was let in")
                mentions(client.refusal(), "malformed")
                expect(client.ended(), "the connection goes on")
        with Client(world.source.socket) as client:
            client.send(Client.HELLO, Client.hello("M\u00fchle \U0001f600", [
                Client.region("r", 1 << 30, MIB)], problem="\u00e4" * 500))
            expect(client.receive()[0] == Client.WELCOME, "no welcome")
            mine = world.source.stats("M\u00fchle \U0001f600")["sessions"]
            expect(len(mine) == 1 and mine[0]["problem"] == "\u00e4" * 500, mine)


@contextlib.contextmanager
def _offered(world, vm):
    """A VM of this process, offered."""
    world.add(Vmm(world.destination, "destination", vm, mem=1, fill=1))
    ram = os.memfd_create("ram")
    os.ftruncate(ram, MIB)
    with Client(world.source.socket, timeout=20) as client:
        client.send(Client.HELLO, Client.hello(
            vm, [Client.region("region0", 1 << 30, MIB, fd=0)], role=Client.SOURCE), fds=[ram])
        expect(client.receive()[0] == Client.WELCOME, "no welcome")
        client.send(Client.OFFER, text(world.destination.address))
        expect(client.receive()[0] == Client.EXPORT, "no EXPORT")
        client.send(Client.EXPORTED, struct.pack("<iQ", 0, 0) + text(""))
        while client.receive()[0] != 15:  # OFFERED
            pass
        yield
    os.close(ram)


def _seal(world, vm, answer):
    """The daemon's answer to a seal by a monitor of this process, which says answer(id) to each question."""
    ours, theirs = socket.socketpair()

    def monitor():
        with contextlib.suppress(OSError), ours.makefile("r") as lines:
            for line in lines:
                ours.sendall(answer(json.loads(line)["id"]) + b"\r\n")

    with ours, theirs, Client(world.source.socket, timeout=20) as driver:
        thread = threading.Thread(target=monitor, daemon=True)
        thread.start()
        words = json.dumps({"op": "seal", "vm": vm}).encode()
        driver.send(Client.OPERATOR, struct.pack("<II", 0, len(words)) + words,
                    fds=[theirs.fileno()])
        kind, body = driver.receive()
        expect(kind == Client.REPLY, kind)
        said = json.loads(body.bytes(body.take("II")[1]))
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()
        return said


def reason_cut_short():
    """A reason that is cut to its bound, in the middle of a character or not, is an answer that parses."""
    with World() as world, _offered(world, "vm"):
        for status in ("\u00e4" * 2000, "x" + "\u00e4" * 2000):
            said = _seal(world, "vm", lambda name, word=status: json.dumps(
                {"return": {"running": True, "status": word}, "id": name},
                ensure_ascii=False).encode())
            mentions(said["error"], "not stopped", "\u00e4\u00e4")
        return f"{len(said['error'].encode())} bytes"


@contextlib.contextmanager
def _watching(world, vm):
    """What postcopyctl says of that VM, one page a line."""
    words = [postcopyd.program("postcopyctl"), "--socket", world.source.socket, "stats", vm,
             "--json", "--watch=0.1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout
            expect(process.poll() is None, "it has ended")
        finally:
            process.kill()


def wrong_words():
    """A VM that is not there, or does not leave, is told apart from one that is; no silence, no success."""
    with World() as world:
        source, _ = world.vms()
        for words, status, *said in (
                (("cancel", "nosuch"), 1, "'nosuch' is not leaving", "none of that name", "jobs"),
                (("abandon", "nosuch"), 1, "'nosuch' is not leaving"),
                (("cancel", source.vm), 1, f"VM '{source.vm}' is here", "not leaving"),
                (("stats", "nosuch"), 1, "nosuch", "status"),
                (("stats", "nosuch", "--json"), 1, "no VM 'nosuch'", "status"),
                *((("stats", f"--watch={often}"), 2, "0.05 to 86400") for often in ("0", "-1", "0.01", "1e9")),
                (("limit", "12Q"), 2, "12Q", "no rate"),
                (("limit", "nosuch", "1M"), 1, "nosuch", "destination"),
                (("cancel", "--bogus", "vm"), 2, "bogus", "cancel --help"),
                (("--bogus",), 2, "bogus", "postcopyctl --help")):
            done = world.source.ctl(*words)
            expect(done.returncode == status and not done.stdout, f"{words}: {done}")
            mentions(done.stderr, "postcopyctl:", *said)
        found = json.loads(world.source.ctl("stats", source.vm, "--json").stdout)
        expect(len(found["sessions"]) == 1, found)
        with _watching(world, "nosuch") as pages:
            expect(not json.loads(pages.readline())["sessions"], "a session")  # who watches may wait for it


def over():
    """What migrations cost can be read when they are over, by an operator and nobody else."""
    with World(destination={"daemon": {"group": "nogroup"}}) as world:
        for count in (1, 2):
            source, destination = world.vms(mem=8, fill=8)
            world.move(source, destination)
            live, _ = world.complete(source, destination, passes=1)
            destination.quit()
            world.destination.wait("end of the import", lambda: not world.destination.imported("vm"))
            past = world.destination.stats("vm")["past"]
            expect(len(past) == count, past)
            expect([vcpu["faults"] for vcpu in past[0]["vcpus"]] ==
                   [vcpu["faults"] for vcpu in live["vcpus"] if vcpu["faults"]], past[0]["vcpus"])
            for figure in ("mode", "source", "pages", "faults", "complete_ms", "latency"):
                expect(past[0][figure] == live[figure], f"{figure}: {past[0][figure]}, not {live[figure]}")
            expect(past[0]["state"] == "released" and past[0]["missing_bytes"] == 0, past[0])
            expect(abs(past[0]["ended_us"] / 1e6 - time.time()) < 60 * SLOW, past[0]["ended_us"])
            source.quit()
        of_all = world.destination.stats()["past"]
        expect([words["vm"] for words in of_all] == ["vm", "vm"] and "pages" not in of_all[0], of_all)
        told = world.destination.ctl("stats").stdout
        expect(told == "nothing is being imported or exported; over: vm\n", told)
        told = world.destination.ctl("stats", "vm")
        expect(told.returncode == 0, told)
        title, _, figures = told.stdout.partition("\n")
        mentions(title, "vm: released, from 127.0.0.1", "over since 20")
        expect("by fault" in figures and "p99" in figures, figures)
        expect("past" not in as_nobody(world.destination.socket, [{"op": "stats", "vm": "vm"}])[0],
               "nobody may read it")
        return title


def deep_nesting():
    """JSON that nests deeper than a stack is large is not parsed, from an operator or from a monitor."""
    with World() as world, _offered(world, "vm"):
        subprocess.run(["prlimit", "--pid", str(world.source.process.pid), f"--stack={MIB}:"],
                       check=True)
        for words in (b"[" * 48000, b'{"a":' * 9000, b"]" * 20000 + b"[" * 28000,
                      b'{"a":"' + b"]" * 20000 + b'","b":' + b"[" * 28000,
                      b'/* " */' + b"[" * 48000, b"{'\"':" + b"[" * 48000):
            with Client(world.source.socket) as client:
                client.send(Client.OPERATOR, struct.pack("<II", 0, len(words)) + words)
                message = client.receive()
                expect(message and message[0] == Client.REPLY, f"{words[:20]}: {message}")
                _, length = message[1].take("II")
                mentions(json.loads(message[1].bytes(length))["error"], "nested")
        with Client(world.source.socket) as client:
            named = client.ask(op="cancel", vm="[" * 200)["error"]
            mentions(named, "not leaving")  # a name may hold whatever it likes
        for line in (b"[" * MIB, b'{"a":"' + b"]" * MIB + b'","b":' + b"[" * MIB):
            mentions(_seal(world, "vm", lambda _, said=line: said)["error"], "monitor", "protocol")


@contextlib.contextmanager
def _many_sessions(world, n):
    """So many clients, of each of which there is much to say."""
    with contextlib.ExitStack() as many:
        for i in range(n):
            client = many.enter_context(Client(world.source.socket))
            client.send(Client.HELLO, Client.hello(
                f"vm{i}-" + "n" * 200, [Client.region("r", 1 << 30, MIB)], problem="\"" * 1000))
            expect(client.receive()[0] == Client.WELCOME, "no welcome")
        yield


def _request(client, **request):
    words = json.dumps(request).encode()
    client.send(Client.OPERATOR, struct.pack("<II", 0, len(words)) + words)


def _answer(client, pause):
    """The next answer, read with pauses, whose parts nothing may come between."""
    parts = []
    while True:
        time.sleep(pause)
        kind, body = client.receive()
        expect(kind == Client.REPLY, f"message {kind} in the middle of an answer")
        more, length = body.take("II")
        parts.append(body.bytes(length))
        if not more:
            return json.loads(b"".join(parts)), len(parts)


def slow_reader():
    """An answer longer than a socket holds is whole, however slowly it is read, and nobody waits for it."""
    with World() as world, _many_sessions(world, 400), contextlib.ExitStack() as others:
        with Client(world.source.socket) as client:
            for op in ("status", "limit", "stats"):
                _request(client, op=op)
            time.sleep(0.3)
            expect(len(world.source.stats()["sessions"]) == 400, "others are not served")
            first, parts = _answer(client, 0.02)
            expect(len(first["sessions"]) == 400 and parts > 10, parts)
            expect("sessions" not in _answer(client, 0)[0], "the answers are out of order")
            expect(len(_answer(client, 0)[0]["sessions"]) == 400, "the last is not whole")
            expect(client.ask(op="status")["version"], "the connection is of no use any more")
        for _ in range(5):  # these never read, and then go away
            _request(others.enter_context(Client(world.source.socket)), op="stats")
        time.sleep(0.2)
        pid = world.source.process.pid
        before = len(os.listdir(f"/proc/{pid}/fd"))
        others.close()
        world.source.wait("end of those who do not read",
                          lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before - 5)
        expect("cannot answer" not in world.source.log(), world.source.log()[-500:])
        return f"{parts} parts"


def operator_group():
    """Operators are processes of the group, whatever the name service says of their user."""
    nogroup = grp.getgrnam("nogroup").gr_gid
    operators = next(group for group in grp.getgrall()
                     if group.gr_gid not in (0, nogroup) and "nobody" not in group.gr_mem)
    crowd = [str(gid) for gid in range(100000, 100300)]
    settings = {"daemon": {"group": "nogroup", "operator_group": operators.gr_name}}

    def errno(group, *groups):
        words = ("--groups", ",".join(map(str, groups))) if groups else ("--clear-groups",)
        return as_nobody(world.source.socket, [{"op": "limit"}], group, words)[0].get("errno")

    with World(source=settings) as world:
        gid = operators.gr_gid
        for expected, said in ((1, errno(nogroup)), (None, errno(nogroup, gid)),
                               (None, errno(gid, nogroup)), (1, errno(nogroup, *crowd)),
                               (None, errno(nogroup, *crowd, gid))):
            expect(said == expected, f"{said}, not {expected}")
        return operators.gr_name
