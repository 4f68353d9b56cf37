# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes wrong over the UNIX socket: one clear line, and nobody else notices."""

import contextlib
import ctypes
import fcntl
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wire import PAGE, Client, text
from world import MIB, Vmm, World, expect, fetched, host, mentions


@contextlib.contextmanager
def _busy_world(**settings):
    """A world with a migration under way, which has to end well whatever happens meanwhile."""
    with World(proxied=True, **settings) as world:
        world.proxy.slow(8 * MIB)
        source, destination = world.vms("bystander", mem=32, fill=32)
        world.move(source, destination)
        yield world
        expect(world.destination.imported("bystander")["state"] in ("running", "complete",
                                                                    "released"), "it suffered")
        world.proxy.undisturbed()
        arrived, _ = world.complete(source, destination)
        expect(fetched(arrived["pages"]) == source.populated and arrived["reconnects"] == 0,
               arrived["pages"])


def _ended(client, *words):
    """The client was told why and is disconnected."""
    message = client.refusal()
    mentions(message, *words)
    expect(client.ended(), "the connection goes on")
    return message


def malformed():
    """Packets that are too short, too long, of other sizes than they say, or noise."""
    with _busy_world() as world:
        daemon = world.destination
        hello = Client.hello("x", [Client.region("r", 1 << 30, MIB)])
        header = Client.HEADER.pack(Client.HELLO, 1, 1, 0)
        noise = random.Random(1)
        packets = [b"\1", header[:-1], header + hello[:-1], header + hello + b"\0",
                   header + hello[:20], Client.HEADER.pack(Client.VCPUS, 1, 1, 0) + b"\xff" * 4,
                   Client.HEADER.pack(Client.HELLO, 1, 1, 4000) + hello,
                   *(Client.HEADER.pack(noise.randrange(1, 25), 1, 1, 0)
                     + noise.randbytes(noise.randrange(1, 4000)) for _ in range(200))]
        for packet in packets:
            with Client(daemon.socket) as client:
                client.send_raw(packet)
                kind, body = client.receive()
                expect(kind in (Client.ERROR, Client.REPLY), f"{packet[:40]}: {kind}")
                if kind == Client.ERROR:
                    body.take("iQ")
                    mentions(body.text(), "")
        with Client(daemon.socket) as client:
            client.send_raw(b"\1\2\3")
            _ended(client, "malformed")
        with Client(daemon.socket) as client:
            client.send_raw(b"\3\0\1\0" + bytes(70000))
            _ended(client, "malformed")
        daemon.wait_log("disconnected", "malformed")
        return f"{len(packets)} packets"


def version():
    """Another version of the protocol is refused by name."""
    with _busy_world() as world, Client(world.destination.socket) as client:
        client.send(Client.HELLO, Client.hello("x", []), version=7)
        return _ended(client, "version 1")


def unknown_message():
    """A message of no known type is answered, and the connection goes on."""
    with _busy_world() as world, Client(world.destination.socket) as client:
        region = Client.region("r", 1 << 30, MIB)
        client.send(Client.HELLO, Client.hello("x", [region]))
        expect(client.receive()[0] == Client.WELCOME, "no welcome")
        for kind in (99, 0, 65535):
            client.send(kind, b"whatever")
            message = client.refusal()
            mentions(message, "know")
        expect(client.ask(op="status")["version"], "the connection is of no use any more")
        return message


def out_of_turn():
    """Requests before the HELLO, a second HELLO, and requests that make no sense."""
    with _busy_world() as world:
        with Client(world.destination.socket) as client:
            client.send(Client.SEAL)
            mentions(client.refusal(), "HELLO")
        with Client(world.destination.socket) as client:
            hello = Client.hello("x", [Client.region("r", 1 << 30, MIB)], role=Client.SOURCE)
            client.send(Client.HELLO, hello)
            expect(client.receive()[0] == Client.WELCOME, "no welcome")
            for kind, answer in ((Client.SEAL, 17), (Client.CANCEL, Client.ERROR)):
                client.send(kind)
                kind, body = client.receive()
                expect(kind == answer and body.take("iQ")[0] < 0, f"{kind}")
                mentions(body.text(), "nothing")
            client.send(6, struct.pack("<iQ", 0, 0) + text(""))  # ARMED, unasked for
            client.send(8, struct.pack("<iQ", 0, 0) + text(""))  # RELEASED
            client.send(10, struct.pack("<iQ", 0, 0) + text(""))  # EXPORTED
            client.send(Client.HELLO, hello)
            client.refusal()
            expect(client.ended(), "the second HELLO was taken")


def overlapping_regions():
    """Two regions over the same memory."""
    with _busy_world() as world, Client(world.destination.socket) as client:
        regions = [Client.region("a", 1 << 30, 2 * MIB),
                   Client.region("b", (1 << 30) + MIB, 2 * MIB, guest=1 << 32)]
        client.send(Client.HELLO, Client.hello("x", regions))
        message = _ended(client, "overlap")
        world.destination.wait_log("refused", "overlap")
        return message


def regions_out_of_bounds():
    """Regions of impossible sizes and places, or naming fds that are not there."""
    with _busy_world() as world:
        for region in (Client.region("r", 1 << 30, 0), Client.region("r", 1 << 30, 5000),
                       Client.region("r", 1, MIB), Client.region("r", 1 << 30, 1 << 50),
                       Client.region("r", (1 << 64) - MIB, 2 * MIB),
                       Client.region("r", 1 << 30, MIB, page_size=12345),
                       Client.region("r", 1 << 30, MIB, page_size=1 << 40),
                       Client.region("r", 1 << 30, MIB, fd=0),
                       Client.region("r" * 200, 1 << 30, MIB),
                       Client.region("line\nbreak", 1 << 30, MIB)):
            with Client(world.destination.socket) as client:
                client.send(Client.HELLO, Client.hello("x", [region]))
                _ended(client, "malformed")
        with Client(world.destination.socket) as client:
            client.send(Client.HELLO, Client.hello("x", []))
            return _ended(client, "no memory")


def same_name_twice():
    """A second process cannot take a VM over."""
    with _busy_world() as world, Client(world.destination.socket) as client:
        hello = Client.hello("bystander", [Client.region("r", 1 << 30, MIB)])
        client.send(Client.HELLO, hello)
        said = _ended(client, "bystander", "already")
        for _ in range(5):
            with Client(world.destination.socket) as again:
                again.send(Client.HELLO, hello)
                _ended(again, "bystander", "already")
        expect(world.destination.log().count("already served") == 1, "the log fills up")
        return said


def too_many_fds():
    """More fds than announced, fewer, far too many, and fds without a message: none is kept."""
    with _busy_world() as world:
        daemon = world.destination

        def open_fds():
            return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

        with open("/dev/null", "rb") as null:
            fd = null.fileno()
            hello = Client.hello("x", [Client.region("r", 1 << 30, MIB)])
            before = daemon.wait("idle daemon", open_fds)
            for fds, announced in (([fd] * 3, 0), ([fd], 5), ([fd] * 250, 250), ([fd] * 200, 1)):
                with Client(daemon.socket) as client:
                    client.send(Client.HELLO, hello, fds=fds, n_fds=announced)
                    _ended(client, "malformed")
            with Client(daemon.socket) as client:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for _ in range(10):  # 2000 fds, one packet's worth after the other
                        client.send(1, fds=[fd] * 200)
                with contextlib.suppress(ConnectionResetError):
                    _ended(client, "malformed")
        daemon.wait("closing of those fds", lambda: open_fds() <= before + 2)


def _offer_own_memory(world, client, fd, size):
    """A client without a VMM's manners: offers a memfd and seals it."""
    client.send(Client.HELLO, Client.hello(
        "short", [Client.region("region0", 1 << 30, size, fd=0)], role=Client.SOURCE), fds=[fd])
    expect(client.receive()[0] == Client.WELCOME, "no welcome")
    os.pwrite(fd, b"x" * size, 0)
    client.send(Client.OFFER, text(world.destination.address))
    expect(client.receive()[0] == Client.EXPORT, "no EXPORT")
    client.send(Client.EXPORTED, struct.pack("<iQ", 0, 0) + text(""))
    while client.receive()[0] != 15:  # OFFERED
        pass
    client.send(Client.SEAL)


def region_is_truncated():
    """A client that cuts its memfd short harms nobody but itself."""
    with _busy_world() as world:
        fd = os.memfd_create("ram")
        os.ftruncate(fd, MIB)
        destination = world.add(Vmm(world.destination, "destination", "short", mem=1, fill=1))
        with Client(world.source.socket, timeout=20) as client:
            _offer_own_memory(world, client, fd, MIB)
            os.ftruncate(fd, 0)
            destination.begin("run")
            line = world.destination.wait_log("cannot be read at the source", timeout=30)
            destination.wait_line("END", timeout=30)  # SIGBUS, as from memory that broke
        os.close(fd)
        expect(not any(said.startswith("BAD") for said in destination.lines), destination.lines)
        return line


def region_is_cut():
    """What is left of a region that was cut short in the middle of the stream still comes."""
    with _busy_world(destination={"import": {"stream_delay_ms": 0}}) as world:
        fd = os.memfd_create("ram")
        size = 16 * MIB
        left = size // PAGE * 7 // 8 + 3
        os.ftruncate(fd, size)
        world.add(Vmm(world.destination, "destination", "short", mem=16, fill=16))
        with Client(world.source.socket, timeout=20) as client:
            _offer_own_memory(world, client, fd, size)
            world.destination.wait_import("short", lambda i: i["populated_bytes"] == size)
            os.ftruncate(fd, left * PAGE + 100)  # and one page is there in part
            pages = world.destination.wait_import("short", lambda i: sum((
                i["pages"]["poisoned"], fetched(i["pages"]))) == size // PAGE)["pages"]
        os.close(fd)
        expect(fetched(pages) == left, f"{fetched(pages)} pages came, not {left}: {pages}")
        return f"{left} pages came, {pages['poisoned']} did not"


def region_on_disk():
    """Memory in a file that the daemon would have to wait for: refused before it is looked at."""
    with _busy_world() as world, tempfile.TemporaryFile(dir="/var/tmp") as file:
        file.truncate(MIB)
        region = Client.region("ram", 1 << 30, MIB, fd=0)
        with contextlib.suppress(OSError):
            fcntl.fcntl(file.fileno(), fcntl.F_GET_SEALS)
            return "/var/tmp is no disk here"
        for role in (Client.SOURCE, 2):
            with Client(world.source.socket) as client:
                client.send(Client.HELLO, Client.hello("x", [region], role), fds=[file.fileno()])
                message = _ended(client, "'ram'", "memfd", "tmpfs")
        ends = os.pipe()
        with Client(world.source.socket) as client:
            client.send(Client.HELLO, Client.hello("x", [Client.region("r", 2 << 30, MIB)]))
            expect(client.receive()[0] == Client.WELCOME, "no welcome")
            for fd in (file.fileno(), *ends):
                client.send(Client.REGION_ADD, region, fds=[fd])
                mentions(client.refusal(), "'ram'", "memfd")
            client.send(Client.REGION_ADD, Client.region("more", 3 << 30, MIB))
            expect(client.receive()[0] == Client.OK, "the connection is of no use any more")
        for fd in ends:
            os.close(fd)
        return message


def operator_nonsense():
    """Requests that are no JSON, no object, unknown or incomplete."""
    with _busy_world() as world, Client(world.source.socket) as client:
        for words in (b"", b"{", b"[1]", b"\"status\"", b"{\"op\": 7}", b"{\"op\": \"fly\"}",
                      b"{\"op\": \"prepare\"}", b"{\"op\": \"prepare\", \"vm\": \"none\"}",
                      b"{\"op\": \"seal\", \"vm\": \"none\"}", b"{\"op\": \"cancel\"}",
                      b"{\"op\": \"vcpus\", \"vm\": \"bystander\", \"tids\": [\"a\"]}",
                      b"{\"op\": \"prepare\", \"vm\": \"bystander\", \"regions\": [3],"
                      b" \"destination\": \"x:1\"}", b"{" * 10000):
            client.send(Client.OPERATOR, struct.pack("<II", 0, len(words)) + words)
            kind, body = client.receive()
            expect(kind == Client.REPLY, kind)
            _, length = body.take("II")
            expect(b"\"error\"" in body.bytes(length), words[:60])


def own_vm_only():
    """An unprivileged client sees its own VM and may do nothing to others."""
    settings = {"daemon": {"group": "nogroup"}}
    with _busy_world(source=settings, destination=settings) as world:
        world.add(Vmm(world.destination, "destination", "own", mem=4, fill=4, user="nobody"))
        mine = world.destination.stats("own")["sessions"]
        expect(len(mine) == 1 and mine[0]["uid"] != 0, mine)
        answers = as_nobody(world.destination.socket, [
            {"op": "status"}, {"op": "cancel", "vm": "bystander"},
            {"op": "prepare", "vm": "bystander", "destination": "127.0.0.1:1"},
            {"op": "abandon", "vm": "bystander"}, {"op": "vcpus", "vm": "own", "tids": []}])
        seen = answers[0]
        expect(not seen["sessions"] and not seen["imports"] and not seen["exports"], seen)
        for answer in answers[1:]:
            expect(answer.get("errno") == 1, answer)
        return answers[1]["error"]


def as_nobody(path, requests, group="nogroup", groups=("--clear-groups",)):
    """The answers to requests of a process without privileges, of these groups."""
    import json  # pylint: disable=import-outside-toplevel

    program = ("import json, sys; from wire import Client\n"
               "client = Client(sys.argv[1])\n"
               "print(json.dumps([client.ask(**r) for r in json.loads(sys.argv[2])]))")
    # Its directory may not be readable to nobody; the module's text goes along instead.
    module = (Path(__file__).parent / "wire.py").read_text()
    code = ("import sys, types; m = types.ModuleType('wire'); "
            "exec(sys.stdin.read(), m.__dict__); sys.modules['wire'] = m\n" + program)
    done = subprocess.run(["setpriv", "--reuid", "nobody", "--regid", str(group), *groups,
                           sys.executable, "-B", "-c", code, str(path), json.dumps(requests)],
                          input=module, capture_output=True, text=True, timeout=30, check=False)
    expect(done.returncode == 0, done.stderr[-500:])
    return json.loads(done.stdout)


def many_connections():
    """Clients that connect and say nothing, or go away in the middle."""
    with _busy_world() as world:
        with contextlib.ExitStack() as many:
            for i in range(300):
                client = many.enter_context(Client(world.destination.socket))
                if i % 2:
                    client.send(Client.HELLO, Client.hello(f"vm{i}", [
                        Client.region("r", 1 << 30, PAGE)]))
            expect(len(world.destination.stats()["sessions"]) == 151, "not all are there")
        world.destination.wait("end of all", lambda: len(
            world.destination.stats()["sessions"]) == 1)


PIDFD_GETFD = 438
SYSCALL_READ = "0 "

# Takes a VMM's own fault messages away from its daemon, by reads that wait for them: every one of them
# is woken by a fault, and the first to run has it.
THIEF = """
import contextlib, os, sys, threading
with contextlib.suppress(OSError):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
os.set_blocking(int(sys.argv[1]), True)
def steal():
    while os.read(int(sys.argv[1]), 32):
        pass
for _ in range(24):
    threading.Thread(target=steal).start()
"""


def duplicate_fd(vmm, kind):
    """A duplicate of a VMM's fd, the first whose link says so: the same open file."""
    folder = Path(f"/proc/{vmm.process.pid}/fd")
    number = next(int(entry.name) for entry in folder.iterdir() if kind in os.readlink(entry))
    pidfd = os.pidfd_open(vmm.process.pid)
    try:
        fd = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, number, 0)
    finally:
        os.close(pidfd)
    if fd < 0:
        raise host.Unavailable(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    return fd


def _resolver_blocks(daemon):
    """True if a resolver sits in read(2)."""
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith("resolver") and \
                    (task / "syscall").read_text().startswith(SYSCALL_READ):
                return True
    return False


def _block_resolver(world, vm):
    """A client whose daemon reads faults that are not there any more; True if it waits for one."""
    with Vmm(world.source, "source", vm, mem=4, fill=4) as source, \
            Vmm(world.destination, "destination", vm, mem=4, fill=4) as destination:
        world.offer(source)
        source.do("seal")
        fd = duplicate_fd(destination, "userfaultfd")
        with subprocess.Popen([sys.executable, "-c", THIEF, str(fd)], pass_fds=[fd]) as thief:
            os.close(fd)
            time.sleep(0.2)  # until it waits
            destination.begin("run")
            time.sleep(0.3)
            blocks = _resolver_blocks(world.destination)
            destination.kill()
            gone = world.destination.wait("end of the import",
                                          lambda: not world.destination.imported(vm))
            thief.kill()
        source.kill()
        return blocks and gone


def userfaultfd_blocks():
    """A client makes its userfaultfd blocking and takes the faults away: its resolver waits in vain,
    and the daemon, which joins it when the client dies, does not."""
    with _busy_world(destination={"import": {"resolvers": 2}}) as world:
        blocked = 0
        for attempt in range(12):
            blocked += _block_resolver(world, f"thief{attempt}")
            if blocked:
                break
        if not blocked:
            raise host.Unavailable("the resolver was always quicker than the thief")
        return f"blocked at attempt {attempt + 1}"


def relay_accepts_nobody():
    """The socket for the device state takes no connection: the daemon does not wait for it."""
    with _busy_world() as world, contextlib.ExitStack() as crowd:
        world.vms("shy", mem=4, fill=4)
        with Client(world.source.socket) as driver:
            prepared = driver.ask(op="prepare", vm="shy", destination=world.destination.address,
                                  relay=True)
            path = prepared["destination_uri"].removeprefix("unix:")
            listener = crowd.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    one = crowd.enter_context(socket.socket(socket.AF_UNIX))
                    one.setblocking(False)
                    one.connect(path)
            words = b'{"op": "relay", "vm": "shy"}'
            driver.send(Client.OPERATOR, struct.pack("<II", 0, len(words)) + words)
            world.destination.wait("relay", lambda: has_thread(world.destination, "relay"))
        # Whoever drove is gone: all is undone, and the thread that tries is joined.
        begin = time.monotonic()
        world.destination.wait("end of the import", lambda: world.destination.imported(
            "shy")["state"] == "cancelled")
        took = time.monotonic() - begin
        expect(not has_thread(world.destination, "relay"), "it goes on trying")
        return f"undone after {took:.1f} s"


def has_thread(daemon, name):
    """True if the daemon has a thread of that name."""
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().strip() == name:
                return True
    return False


CROWD = """
import socket, sys
crowd, answers = [], []
for _ in range(int(sys.argv[2])):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(sys.argv[1])
    crowd.append(one)
for one in crowd:
    one.settimeout(0.2)
    try:
        answers.append(one.recv(65536))
    except TimeoutError:
        pass
print(sum(b"too many" in answer for answer in answers), flush=True)
sys.stdin.read()
"""


def crowd():
    """One user's connections are bounded, whoever else comes is served, and one line says so."""
    settings = {"daemon": {"group": "nogroup", "max_clients_per_user": 5}}
    with _busy_world(destination=settings) as world:
        command = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups",
                   sys.executable, "-B", "-c", CROWD, str(world.destination.socket), "12"]
        for _ in range(2):
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True) as nobody:
                expect(nobody.stdout.readline().strip() == "7", "not seven were turned away")
                expect(world.destination.stats()["sessions"], "root was turned away")
                nobody.stdin.close()
            world.destination.wait("end of the crowd", lambda: len(
                os.listdir(f"/proc/{world.destination.process.pid}/fd")) < 60)
        expect(world.destination.log().count("max_clients_per_user") == 1, "the log fills up")
        return world.destination.wait_log("refused", "max_clients_per_user")


def _cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def no_fds_left():
    """A daemon without a free fd waits for one, and does not spin; then all are served."""
    with World() as world, contextlib.ExitStack() as many:
        pid = world.destination.process.pid
        most = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd")) + 1
        # A connection takes two: itself, and what tells whether its process lives.
        subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={most + 10}:"], check=True)
        clients = [many.enter_context(Client(world.destination.socket)) for _ in range(40)]
        line = world.destination.wait_log("cannot accept clients", "LimitNOFILE")
        before = _cpu_seconds(pid)
        time.sleep(2)
        spent = _cpu_seconds(pid) - before
        expect(spent < 1, f"{spent} s of CPU time in 2 s")
        expect(world.destination.log().count("cannot accept") == 1, "the log fills up")
        for client in clients[:-4]:
            client.socket.close()
        for client in clients[-4:]:
            expect(client.ask(op="status")["version"], "not served")
        return f"{spent:.2f} s of CPU time; {line}"
