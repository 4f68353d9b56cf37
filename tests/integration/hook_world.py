# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt's hook meets: a host's folders, a QEMU (real or played), a daemon (played)."""

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from wire import Client
from world import expect, host, postcopyd
from harness.qmp import connect  # world has said where it is

UUID = "11111111-2222-4333-8444-555555555555"
TOKEN = "0123456789abcdef" * 4
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"


def domain(*, attributes=f"enabled='yes' token='{TOKEN}'", inside=""):
    """A domain's XML."""
    return (f"<domain type='kvm'><name>guest</name><uuid>{UUID}</uuid><metadata>"
            f"<postcopyd:migration xmlns:postcopyd='urn:postcopyd:domain:1' {attributes}/>"
            f"</metadata><devices/>{inside}</domain>")


class Site:
    """A host with our files installed in a folder; a context manager."""

    def __init__(self, **libvirt):
        self._ends = contextlib.ExitStack()
        self.folder = Path(self._ends.enter_context(host.workdir()))
        self.config = self.folder / "postcopyd.conf"
        self.socket = self.folder / "daemon.sock"
        self.preload = self.folder / "libpostcopy-qemu.so"
        self.monitor = self.folder / "dbus" / "postcopyd.tunnelmigrate.dest.guest"
        self.monitor.parent.mkdir()
        self.preload.write_bytes(b"")
        self.configure(**libvirt)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ends.close()

    def add(self, thing):
        """Ends with the host."""
        return self._ends.enter_context(thing)

    def configure(self, **libvirt):
        """Writes the daemon's configuration."""
        self.config.write_text(
            f"[daemon]\nsocket = {self.socket}\n[libvirt]\n"
            + "".join(f"{key} = {value}\n" for key, value in libvirt.items()))

    def pid_file(self, pid):
        """What libvirt writes when it started a QEMU."""
        (self.folder / "guest.pid").write_text(f"{pid}\n")

    def environment(self, **more):
        """What the hook's process is to find there."""
        variables = {"POSTCOPYD_CONFIG": self.config, "POSTCOPYD_PRELOAD": self.preload,
                     "POSTCOPYD_LIBVIRT_RUN": self.folder, **more}
        return {**os.environ, **{name: str(value) for name, value in variables.items()}}

    def hook(self, operation, step, xml, *, name="guest", timeout=30, **environment):
        """Runs the hook; its CompletedProcess, with how long it took as `seconds`."""
        begin = time.monotonic()
        done = subprocess.run(
            [postcopyd.program("50-postcopyd"), name, operation, step, "-"], input=xml,
            capture_output=True, text=True, timeout=timeout, check=False,
            env=self.environment(**environment))
        done.seconds = time.monotonic() - begin
        return done

    def migrate(self, xml):
        """What libvirt would start the domain with: the filter's output, which never fails."""
        done = self.hook("migrate", "begin", xml)
        expect(done.returncode == 0, f"exit {done.returncode}: {done.stderr}")
        return done

    def arriving(self):
        """The XML of a domain whose QEMU has our additions."""
        return self.migrate(domain()).stdout

    def qemu(self, *capabilities):
        """A real QEMU as libvirt would start it."""
        return self.add(_qemu(self, capabilities))

    def daemon(self, answer):
        """A daemon that answers each request with answer(request)."""
        return self.add(FakeDaemon(self.socket, answer))


class Monitor:
    """A QMP connection, of a QEMU that may just be starting."""

    def __init__(self, path, alive=lambda: True):
        self._socket = connect(path, time.monotonic() + 20, alive)
        self._socket.settimeout(10)
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._file.readline()
        self.ask("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._socket.close()

    def ask(self, command, **arguments):
        """The answer to a command."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "event" not in answer:
                return answer["return"]

    def human(self, line):
        """What the human monitor prints."""
        return self.ask("human-monitor-command", **{"command-line": line})

    def capability(self, name):
        """Whether a migration capability is on."""
        return next(c["state"] for c in self.ask("query-migrate-capabilities")
                    if c["capability"] == name)


@contextlib.contextmanager
def _qemu(site, capabilities):
    values = re.findall(r'<qemu:arg value="([^"]*)"/>', site.arriving())
    expect(len(values) == 4, values)
    words = [host.qemu(), "-M", "pc", "-m", "64", "-smp", "2", "-accel", "tcg", "-display", "none",
             "-nodefaults", "-incoming", "defer", "-uuid", UUID,
             "-S", "-chardev", "socket,id=console,host=127.0.0.1,port=0,server=on,wait=off", *values]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        try:
            with Monitor(site.monitor, lambda: process.poll() is None) as monitor:
                site.pid_file(process.pid)
                monitor.ask("migrate-set-capabilities", capabilities=[
                    {"capability": name, "state": True} for name in capabilities])
            yield process
        finally:
            process.kill()


class FakeMonitor:
    """A QEMU of this process: play(connection) is run for each client; a context manager."""

    def __init__(self, site, play):
        self._play = play
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(site.monitor))
        self._listener.listen()
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        site.pid_file(os.getpid())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self):
        while not self._ended:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                self._play(connection)


GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}}}\r\n'


def scripted(answers):
    """Plays a QEMU that answers so by command; what is bytes goes out as it is."""
    def play(connection):
        connection.sendall(GREETING)
        for line in connection.makefile("rb"):
            request = json.loads(line)
            said = {"qmp_capabilities": {}, **answers}.get(request["execute"], {})
            if callable(said):
                said = said(request.get("arguments", {}))
            if isinstance(said, bytes):
                connection.sendall(said)
            else:
                connection.sendall(json.dumps(
                    {"return": said, "id": request["id"]}).encode() + b"\r\n")
    return play


class FakeDaemon:
    """Answers operators' requests; a context manager."""

    def __init__(self, path, answer):
        self.requests = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def only(self):
        """The one request that came."""
        expect(len(self.requests) == 1, f"{len(self.requests)} requests: {self.requests}")
        return self.requests[0]

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with Client(fd=connection.detach(), timeout=60) as client, \
                    contextlib.suppress(OSError):
                self._talk(client)

    def _talk(self, client):
        while message := client.receive():
            kind, body = message
            expect(kind == Client.OPERATOR, kind)
            _, length = body.take("II")
            self.requests.append(json.loads(body.bytes(length)))
            said = self._answer(self.requests[-1])
            if said is None:
                continue
            words = json.dumps(said).encode()
            client.send_raw(Client.HEADER.pack(Client.REPLY, 1, client.serial, 0)
                            + struct.pack("<II", 0, len(words)) + words)
