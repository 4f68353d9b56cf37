# SPDX-License-Identifier: GPL-2.0-or-later
"""Two daemons, the VMMs that are their clients, and a link that can be disturbed.

Daemons and proxy are those of the end-to-end tests; what is added here is that nothing may go by
unnoticed: every daemon and VMM has to end well, also one that ends long after its test's point.
"""

import atexit
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

# pylint: disable=wrong-import-position
from harness import host, postcopyd  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from wire import PAGE, Client  # noqa: E402

MIB = 1 << 20

# Sanitizers slow everything down; what is told in seconds gets more of them.
SLOW = float(os.environ.get("POSTCOPY_SLOW", "1"))

REPORTS = re.compile(r"(ERROR|WARNING): \w+Sanitizer|runtime error:")


class Failure(Exception):
    """Something is not as it has to be."""


def expect(condition, what):
    """Raises unless condition holds."""
    if not condition:
        raise Failure(str(what)[:1500])


def mentions(message, *words):
    """A message for people: one line that has these words."""
    expect("\n" not in message.strip(), f"not one line: {message!r}")
    for word in words:
        expect(word.lower() in message.lower(), f"no '{word}' in: {message}")


class Daemon(postcopyd.Daemon):
    """A postcopyd whose end is looked at too."""

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        status = self.stop()
        if kind is None:
            expect(status == 0, f"daemon {self.name} ended with {status}: {self.log()[-2000:]}")
            expect(not REPORTS.search(self.log()), f"daemon {self.name}: {self.log()[-4000:]}")

    def start(self, timeout=10.0):
        super().start(timeout * SLOW)

    def stats(self, vm=None):
        """As postcopyctl stats --json, without a process for each."""
        request = {"op": "stats", **({"vm": vm} if vm else {})}
        try:
            with Client(self.socket) as client:
                return client.ask(**request)
        except OSError as error:
            raise postcopyd.DaemonError(f"{self.name}: {error}") from error

    def wait_import(self, vm, predicate, timeout=30.0, interval=0.005):
        """Waits until predicate(import) holds; the import."""
        return super().wait_import(vm, predicate, timeout * SLOW, interval)

    def wait_log(self, *words, timeout=10.0):
        """The line of the log that has all these words."""
        def look():
            for line in self.log().splitlines():
                if all(word.lower() in line.lower() for word in words):
                    return line
            return None
        return self.wait(f"line with {words}", look, timeout * SLOW)

    def _answers(self):
        try:
            return self.socket.exists() and bool(self.stats())
        except postcopyd.DaemonError:
            return False


class Vmm:
    """tests/integration/vmm, driven line by line; a context manager."""

    def __init__(self, daemon, role, vm="vm", *, mem=64, fill=32, user=None, pid_namespace=False,
                 **options):
        words = [postcopyd.BUILD / "tests/integration/vmm", role, "--socket", daemon.socket,
                 "--name", vm, "--mem", mem, "--fill", fill]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [value])
        if user:
            words = ["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups", *words]
        if pid_namespace:
            words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *words]
        self.populated = fill * MIB // PAGE
        self._start(words, role, vm)
        self.wait_line("READY", timeout=30)

    def _start(self, words, role, vm, **popen):
        self.role = role
        self.vm = vm
        self._lines = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, bufsize=1, **popen)
        atexit.register(self.kill)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None and self.process.poll() is None:
            self.quit()
        self.kill()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._lines.append("END")
            self._changed.notify_all()

    @property
    def lines(self):
        """All it said."""
        with self._changed:
            return list(self._lines)

    def wait_line(self, *starts, timeout=60.0, since=0, count=1):
        """The count-th line from since on that starts so."""
        deadline = time.monotonic() + timeout * SLOW
        with self._changed:
            while True:
                found = [line for line in self._lines[since:] if line.startswith(starts)]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if left <= 0 or "END" in self._lines:
                    raise Failure(f"{self.role} {self.vm}: no {starts}: {self._lines[-12:]}")
                self._changed.wait(left)

    def begin(self, command):
        """Sends a command; answered() waits for its answer."""
        mark = len(self.lines)
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return command.split()[0], mark

    def answered(self, begun, timeout=90.0):
        """None, or why the command failed."""
        command, mark = begun
        line = self.wait_line(f"OK {command}", f"ERR {command}", timeout=timeout, since=mark)
        return None if line.startswith("OK") else line[len(f"ERR {command} "):]

    def do(self, command):
        """A command that has to succeed."""
        refusal = self.answered(self.begin(command))
        expect(refusal is None, f"{self.role} {self.vm}: {command}: {refusal}")

    def refused(self, command):
        """A command that has to fail; the reason."""
        refusal = self.answered(self.begin(command))
        expect(refusal is not None, f"{self.role} {self.vm}: {command} succeeded")
        return refusal

    def wait_event(self, *names, timeout=60.0, count=1):
        """The line of an event."""
        return self.wait_line(*(f"EVENT {name} " for name in names), timeout=timeout, count=count)

    def verified(self, passes=2, timeout=90.0):
        """So many passes over all memory from now on, and every word was right."""
        self.wait_line("VERIFIED", timeout=timeout, since=len(self.lines), count=passes)
        self.no_bad_word()

    def no_bad_word(self):
        """Nothing was wrong so far."""
        bad = [line for line in self.lines
               if line.startswith("BAD") or line.startswith("VERIFIED") and " bad=0 " not in line]
        expect(not bad, f"{self.role} {self.vm}: {bad[:3]}")

    def kill(self):
        """SIGKILL."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        atexit.unregister(self.kill)

    def quit(self, timeout=30.0):
        """Ends it; it has to end well."""
        self.begin("quit")
        status = self.process.wait(timeout * SLOW)
        atexit.unregister(self.kill)
        expect(status == 0, f"{self.role} {self.vm} ended with {status}: {self.lines[-20:]}")


class World:
    """Daemon a, where VMs are at first, and daemon b, where they go; a context manager."""

    def __init__(self, *, source=None, destination=None, proxied=False):
        self._ends = contextlib.ExitStack()
        self.folder = Path(self._ends.enter_context(host.workdir()))
        self.folder.chmod(0o755)
        try:
            self.source = self.add(self.make("a", source or {}))
            self.destination = self.add(self.make("b", destination or {}))
            self.proxy = None
            if proxied:
                self.proxy = self.add(Link(self.source.address))
                self.source.stop()
                self.source.configure(peer={"advertise": self.proxy.address})
                self.source.start()
        except BaseException:
            self._ends.close()
            raise

    def make(self, name, settings):
        """One of the daemons."""
        return Daemon(self.folder, name, **settings)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if exception[0]:
            for daemon in (self.source, self.destination):
                print(f"-- daemon {daemon.name}\n{daemon.log()[-6000:]}", flush=True)
        return self._ends.__exit__(*exception)

    def add(self, thing):
        """Ends with the world."""
        return self._ends.enter_context(thing)

    def vms(self, vm="vm", *, to=None, **shape):
        """A VM at its source and one that waits for its memory."""
        return (self.add(Vmm(self.source, "source", vm, **shape)),
                self.add(Vmm(self.destination, "destination", vm, **{**shape, **(to or {})})))

    def offer(self, source):
        """Prepares its migration."""
        source.do(f"offer {self.destination.address}")

    def move(self, source, destination):
        """Offers, seals and starts the guest."""
        self.offer(source)
        source.do("seal")
        destination.do("run")

    def complete(self, source, destination, passes=2, timeout=90.0):
        """Waits until all is there and verified; the figures of import and export."""
        destination.wait_event("released", timeout=timeout)
        source.wait_event("done")
        destination.verified(passes)
        return self.figures(source.vm)

    def figures(self, vm="vm"):
        """Those of import and export."""
        return self.destination.imported(vm), self.source.exported(vm)


class Link(Proxy):
    """The proxy of the end-to-end tests, which can also keep everything back."""

    def __init__(self, address):
        self._flows = threading.Event()
        self._flows.set()
        super().__init__(address)

    def slow(self, rate):
        """So many bytes a second for pages."""
        self.limit("urgent", rate)
        self.limit("bulk", rate)

    def hold(self):
        """Nothing passes, and nobody is told."""
        self._flows.clear()

    def release(self):
        """What was held back goes on its way."""
        self._flows.set()

    def close(self):
        self._flows.set()
        super().close()

    def filter(self, channel, direction, data):
        data = super().filter(channel, direction, data)
        self._flows.wait()
        return data


def threads(pid, start):
    """The status files of a process's threads by name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        if status["Name"].startswith(start):
            found[status["Name"]] = status
    return found


def fetched(pages):
    """Pages an import got from the source."""
    return pages["by_fault"] + pages["by_around"] + pages["by_stream"]
