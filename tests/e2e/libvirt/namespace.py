# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of its own as far as its programs can see: mounts, network, processes, host name."""

import atexit
import os
import signal
import subprocess
import time
from pathlib import Path

# The first process of the namespace: it reaps what is orphaned and ends when this program does,
# however it ends, because the pipe on its standard input does.  The kernel ends all others then.
HOLDER = """
set -e
eval "$1"
echo up
exec >/dev/null
while read -r _; do :; done
"""


class NamespaceError(Exception):
    """The namespace could not be made, or a program in it failed."""


class Program(subprocess.Popen):
    """A program inside, started through nsenter: signals reach it, not its starter.

    It ends with its starter.
    """

    _inner = None

    @property
    def inner(self):
        """The program's process id out here; None if it has ended."""
        while self._inner is None and self.poll() is None:
            self._inner = next(iter(children(self.pid)), None)
        return self._inner

    def send_signal(self, sig):
        """To the program.  Its starter stops when the program does, and goes on only when told to."""
        if self.poll() is not None or self.inner is None:
            return
        os.kill(self.inner, sig)
        if sig == signal.SIGSTOP:
            wait_for("stopped program", lambda: stat_fields(self.pid)[:1] in ([], ["T"]))
        else:
            os.kill(self.pid, signal.SIGCONT)

    def terminate(self):
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self):
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def stat_fields(pid):
    """What /proc says of a process behind its name; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def children(pid):
    """The process ids of a process's children, as seen from here."""
    found = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [child for child in found if stat_fields(child)[1:2] == [str(pid)]]


class Namespace:
    """Mounts, network, processes and host name apart from the machine's; a context manager.

    script is run by the shell inside at first, to mount what is to differ.
    """

    def __init__(self, name, script):
        words = ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--kill-child",
                 "--mount-proc", "--propagation", "private",
                 "bash", "-c", HOLDER, name, script]
        self.name = name
        self._errors = None
        self.holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
        atexit.register(self.close)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def wait(self):
        """Waits until the script has run."""
        if self.holder.stdout.readline() != b"up\n":
            _, errors = self.holder.communicate()
            raise NamespaceError(f"{self.name}: {errors.decode().strip()}")

    def close(self):
        """Ends it with all that runs in it: when this returns, nothing of it is left."""
        atexit.unregister(self.close)
        self.holder.stdin.close()
        try:
            self.holder.wait(10)
        except subprocess.TimeoutExpired:
            self.holder.kill()
            self.holder.wait()
        for pipe in (self.holder.stdout, self.holder.stderr):
            pipe.close()

    @property
    def prefix(self):
        """Words before a program's name that make it run inside, and end with its starter."""
        spaces = f"/proc/{self.holder.pid}/ns"
        return ["nsenter", f"--mount={spaces}/mnt", f"--uts={spaces}/uts", f"--net={spaces}/net",
                f"--pid={spaces}/pid_for_children", "--", "setpriv", "--pdeathsig", "KILL"]

    def path(self, inside):
        """By which a file inside can be opened out here."""
        return Path(f"/proc/{self.holder.pid}/root") / str(inside).lstrip("/")

    def start(self, *words, **options):
        """A Program inside."""
        return Program([*self.prefix, *words], stdin=subprocess.DEVNULL, **options)

    def run(self, *words, timeout=30.0, check=True):
        """Runs a program inside to its end; its CompletedProcess, with its words as text."""
        done = subprocess.run([*self.prefix, *words], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise NamespaceError(f"{self.name}: {' '.join(map(str, words))}: exit "
                                 f"{done.returncode}: {(done.stderr or done.stdout).strip()}")
        return done

    def outer(self, pid):
        """The process id out here of a process inside, None if there is none."""
        space = os.stat(f"/proc/{self.holder.pid}/ns/pid_for_children").st_ino
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{entry}/ns/pid").st_ino != space:
                    continue
                status = Path(f"/proc/{entry}/status").read_text()
            except OSError:
                continue
            line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if int(line.split()[-1]) == pid:
                return int(entry)
        return None


def wait_for(what, found, timeout=10.0, interval=0.01):
    """What found() returns once it is true."""
    deadline = time.monotonic() + timeout
    while not (result := found()):
        if time.monotonic() > deadline:
            raise NamespaceError(f"no {what} in {timeout} s")
        time.sleep(interval)
    return result
