# SPDX-License-Identifier: GPL-2.0-or-later
"""Our daemons, and migrations driven by postcopyctl."""

import atexit
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from . import host
from .native import Timeline
from .vm import Vm, VmError

BUILD = Path(os.environ.get("POSTCOPY_BUILD", host.TOP / "build" / "release"))

# A second signal for a daemon that does not end.
STOP_SECONDS = 10.0

PORTS = (10000, 30000)  # below /proc/sys/net/ipv4/ip_local_port_range


class DaemonError(Exception):
    """The daemon is not, or does not do, what was expected."""


def program(name):
    """A program of this build."""
    path = BUILD / "bin" / name
    if not path.is_file():
        raise host.Unavailable(f"{path} is not built")
    return path


def preload():
    """The library that makes a QEMU a client."""
    path = BUILD / "lib" / "libpostcopy-qemu.so"
    if not path.is_file():
        raise host.Unavailable(f"{path} is not built")
    return path


def free_port():
    """A TCP port that nobody has just now, and of those that the kernel gives to nobody by itself.

    Those it gives to connections would often be taken again before a daemon listens there.
    """
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


class Daemon:
    """One postcopyd with its own socket, port and configuration; a context manager.

    settings are keys of the configuration by section: peer={"advertise": "…"}.
    It runs in a network namespace if one is named, with an address there.
    reached_by is the path of its socket out here, if it is another than what the daemon is told.
    """

    prefix = ()  # words before the program's name: where it is to run
    starter = subprocess.Popen

    def __init__(self, folder, name, *, netns=None, host_address="127.0.0.1", port=None,
                 reached_by=None, **settings):
        self.name = name
        self.folder = Path(folder)
        self.socket = reached_by or self.folder / f"{name}.sock"
        self.address = f"{host_address}:{port or free_port()}"
        self._prefix = ["ip", "netns", "exec", netns] if netns else []
        self.log_path = self.folder / f"{name}.log"
        self._config = self.folder / f"{name}.conf"
        self._settings = settings
        self.process = None
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def configure(self, **settings):
        """Other settings, from the next start on."""
        for section, keys in settings.items():
            self._settings.setdefault(section, {}).update(keys)

    def start(self, timeout=10.0):
        """Starts it and waits until it answers."""
        self._write_config()
        with open(self.log_path, "ab") as log:
            words = [*self.prefix, *self._prefix, program("postcopyd"), "--config",
                     self._config]
            self.process = self.starter(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        atexit.register(self.kill)
        deadline = time.monotonic() + timeout
        while not self._answers():
            if not self.alive() or time.monotonic() > deadline:
                self.kill()
                raise DaemonError(f"{self.name} does not start: {self.log()[-500:]}")
            time.sleep(0.01)

    def alive(self):
        """True while the process runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """Ends it as an operator would; the exit status."""
        for _ in range(2):
            if self.alive():
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_SECONDS)
        if self.alive():
            self.process.kill()
        return self._ended()

    def kill(self):
        """SIGKILL, as a crash."""
        if self.alive():
            self.process.kill()
        return self._ended()

    def restart(self):
        """Killed, and started again at once."""
        self.kill()
        self.start()

    def log(self):
        """All it has said so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def ctl(self, *arguments, timeout=20.0):
        """Runs postcopyctl; its CompletedProcess."""
        return subprocess.run([program("postcopyctl"), "--socket", self.socket, *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, check=False)

    def stats(self, vm=None):
        """The daemon's figures, of one VM, which need not be there, or of all."""
        words = ["stats", "--json", *([vm] if vm else [])]
        done = self.ctl(*words)
        if vm and done.returncode == 1 and f"no VM '{vm}'" in done.stderr:
            return {"sessions": [], "imports": [], "exports": []}
        if done.returncode:
            raise DaemonError(f"{self.name}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def imported(self, vm):
        """The figures of an import, None if there is none."""
        return next(iter(self.stats(vm)["imports"]), None)

    def exported(self, vm):
        """The figures of an export, None if there is none."""
        return next(iter(self.stats(vm)["exports"]), None)

    def wait(self, what, found, timeout=30.0, interval=0.02):
        """What found() returns once it is true."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(DaemonError):
                result = found()
                if result:
                    return result
            if time.monotonic() > deadline:
                raise DaemonError(f"{self.name}: no {what} in {timeout} s; {self.log()[-600:]}")
            time.sleep(interval)

    def wait_session(self, vm, timeout=10.0):
        """Waits until that VM's client is known."""
        return self.wait(f"session of {vm}", lambda: next(iter(self.stats(vm)["sessions"]), None),
                         timeout)

    def wait_import(self, vm, predicate, timeout=30.0, interval=0.01):
        """Waits until predicate(import) holds; the import."""
        def look():
            found = self.imported(vm)
            return found if found and predicate(found) else None
        return self.wait(f"such import of {vm}", look, timeout, interval)

    def client_environment(self, vm, log=None):
        """What a QEMU that is to be this daemon's client needs."""
        environment = {"POSTCOPY_SOCKET": str(self.socket), "POSTCOPY_NAME": vm}
        if log:
            environment["POSTCOPY_LOG"] = str(log)
        return environment

    def _answers(self):
        return self.socket.exists() and self.ctl("status", "--json").returncode == 0

    def _ended(self):
        if self.process is None:
            return None
        status = self.process.wait()
        atexit.unregister(self.kill)
        return status

    def _write_config(self):
        runtime = self.folder / f"{self.name}.run"
        sections = {"daemon": {"socket": self.socket, "runtime_dir": runtime},
                    "peer": {"listen": self.address}}
        for section, keys in self._settings.items():
            sections.setdefault(section, {}).update(keys)
        if sections["daemon"]["runtime_dir"] == runtime:
            runtime.mkdir(exist_ok=True)
        self._config.write_text("".join(
            f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
            for section, keys in sections.items()))


class Migration:
    """One run of `postcopyctl migrate`; its events arrive while it runs.

    on_event is called with each event at once, on the reading thread.
    """

    def __init__(self, daemon, source, destination, to, vm, *, timeout_s=None, on_event=None,
                 options=()):
        words = ["migrate", "--json", "--source-qmp", source.control_socket,
                 "--destination-qmp", destination.control_socket, "--destination", to, *options]
        if timeout_s:
            words += ["--timeout", str(timeout_s)]
        self._on_event = on_event
        self._changed = threading.Condition()
        self._events = []
        self.stderr = ""
        self.begin = time.time()
        self._process = subprocess.Popen(
            [program("postcopyctl"), "--socket", daemon.socket, *words, vm],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        atexit.register(self.kill)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def events(self):
        """All events so far, each with `seen`, when it was read."""
        with self._changed:
            return list(self._events)

    def phases(self):
        """The names of the phases so far."""
        return [event["phase"] for event in self.events if event["event"] == "phase"]

    def wait_phase(self, phase, timeout=60.0):
        """The event of a phase, waited for."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for event in self._events:
                    if event.get("phase") == phase:
                        return event
                left = deadline - time.monotonic()
                if left <= 0 or self._process.poll() is not None and not self._reader.is_alive():
                    raise DaemonError(f"no phase {phase}: {self._events[-2:]}")
                self._changed.wait(min(left, 0.2))

    def interrupt(self):
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def kill(self):
        """SIGKILL, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        atexit.unregister(self.kill)

    def wait(self, timeout=120.0):
        """The exit status; `result` and `stderr` hold its last words then."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired as late:
            self.kill()
            raise DaemonError(f"postcopyctl still runs after {timeout} s: "
                              f"{self.events[-2:]}") from late
        self._reader.join()
        atexit.unregister(self.kill)
        return status

    def succeed(self, timeout=120.0):
        """Waits for a success; the result."""
        status = self.wait(timeout)
        if status:
            raise DaemonError(f"postcopyctl: exit {status}: {self.stderr.strip()}")
        return self.result

    def fail(self, timeout=120.0):
        """Waits for a failure; exit status and message."""
        status = self.wait(timeout)
        if not status:
            raise DaemonError(f"postcopyctl succeeded: {self.result}")
        return status, self.stderr.strip()

    @property
    def result(self):
        """The last event, if it is the result."""
        return next((event for event in self.events if event["event"] == "result"), None)

    def _read(self):
        for line in self._process.stdout:
            event = json.loads(line)
            event["seen"] = time.time()
            if self._on_event:
                self._on_event(event)
            with self._changed:
                self._events.append(event)
                self._changed.notify_all()
        self.stderr = self._process.stderr.read()


class Pair:
    """Two daemons and the QEMUs of their VMs; a context manager that ends all of them."""

    def __init__(self, folder, source=None, destination=None):
        self.folder = Path(folder)
        self._ends = contextlib.ExitStack()
        self.source = self._ends.enter_context(Daemon(folder, "a", **(source or {})))
        self.destination = self._ends.enter_context(Daemon(folder, "b", **(destination or {})))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ends.close()

    def add(self, thing):
        """Ends with the pair."""
        return self._ends.enter_context(thing)

    def client(self, daemon, spec, name, vm="vm", **options):
        """A QEMU that is a client of a daemon."""
        environment = daemon.client_environment(vm, self.folder / f"{name}.client")
        started = self.add(Vm(spec, self.folder, name, preload=preload(), env=environment,
                              **options))
        daemon.wait_session(vm)
        return started

    def source_vm(self, spec, vm="vm", **options):
        """Starts a guest at the source and waits until it has filled its memory."""
        started = self.client(self.source, spec, f"{vm}-src", vm, **options)
        started.wait_ready()
        return started

    def destination_vm(self, source, spec=None, vm="vm", **options):
        """The QEMU at the destination that waits for it."""
        options = {"incoming": "defer", "paused": True, "marker": 0x11, "uuid": source.uuid,
                   **options}
        return self.client(self.destination, spec or source.spec, f"{vm}-dst", vm, **options)

    def migrate(self, source, destination, vm="vm", daemon=None, **options):
        """Begins a migration away from daemon, which is the source's if it is not told."""
        daemon = daemon or self.source
        other = self.destination if daemon is self.source else self.source
        return self.add(Migration(daemon, source, destination, other.address, vm, **options))


def timeline(migration, source, destination, daemon, vm="vm"):
    """The Timeline of a migration that succeeded."""
    arrived = daemon.wait_import(vm, lambda i: i["complete_ms"] > 0)
    stop = source.qmp.wait_event("STOP", since=migration.begin).time
    resume = destination.qmp.wait_event("RESUME").time
    return Timeline(begin=migration.begin, stop=stop, resume=resume,
                    completed=arrived["completed_us"] / 1e6)


def expect(condition, what):
    """Raises unless condition holds."""
    if not condition:
        raise VmError(what)
