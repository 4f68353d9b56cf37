# SPDX-License-Identifier: GPL-2.0-or-later
"""What the parts share: programs, costs of processes, samples, and what a part hands back."""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
for folder in ("integration", "e2e"):
    sys.path.insert(0, str(TESTS / folder))

# pylint: disable=wrong-import-position
from harness import host, postcopyd  # noqa: E402,F401
from world import MIB, Failure, World  # noqa: E402

PAGE = 4096
CPUS = os.cpu_count()


class Skipped(Exception):
    """This part cannot be measured here; says why."""


@dataclass
class Options:
    """How much to measure."""

    rounds: int = 3
    quick: bool = False


@dataclass
class Part:
    """What a part found."""

    ratios: dict = field(default_factory=dict)
    tables: list = field(default_factory=list)   # (title, head, rows)
    notes: list = field(default_factory=list)
    samples: dict = field(default_factory=dict)

    def table(self, title, head, rows):
        """One more table; cells are text or numbers."""
        self.tables.append({"title": title, "head": list(head), "rows": [list(r) for r in rows]})


class Samples:
    """Values by name, one for each round."""

    def __init__(self):
        self.values = {}

    def add(self, name, value):
        """One more value."""
        self.values.setdefault(name, []).append(value)

    def median(self, name):
        """None if nothing was measured."""
        values = self.values.get(name)
        return statistics.median(values) if values else None

    def as_dict(self):
        """For JSON; names are tuples."""
        return {"/".join(str(word) for word in name) if isinstance(name, tuple) else name: values
                for name, values in self.values.items()}


def bench_program(name):
    """A program of tests/bench in this build."""
    path = postcopyd.BUILD / "tests/bench" / name
    if not path.is_file():
        raise Skipped(f"{path} is not built")
    return path


def run_program(name, *words, timeout=300):
    """Runs one of tests/bench; the JSON it prints."""
    done = subprocess.run([str(word) for word in (bench_program(name), *words)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, check=False)
    if done.returncode:
        raise Failure(f"{name} {words}: {done.returncode} {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cpu_ns(pid):
    """CPU time of a process, its ended threads included."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def threads(pid):
    """{tid: (name, CPU ns, voluntary switches)} of a process."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            ran = int((task / "schedstat").read_text().split()[0])
            status = (task / "status").read_text()
        except OSError:
            continue  # it has just ended
        sleeps = next(int(line.split()[1]) for line in status.splitlines()
                      if line.startswith("voluntary_ctxt_switches"))
        found[int(task.name)] = (name, ran, sleeps)
    return found


def pin(pid, cpu):
    """All threads of a process to one CPU (-1: any); those it makes later inherit it."""
    for tid in threads(pid):
        try:
            os.sched_setaffinity(tid, set(range(CPUS)) if cpu < 0 else {cpu})
        except ProcessLookupError:
            continue


class Cost:
    """What processes cost between two moments."""

    def __init__(self, **pids):
        self._pids = pids
        self._before = self._now()

    def _now(self):
        return {name: cpu_ns(pid) for name, pid in self._pids.items()}

    def spent(self):
        """CPU nanoseconds by name since the beginning."""
        return {name: now - self._before[name] for name, now in self._now().items()}


class Session:
    """A VM whose destination is armed and served, its stream not begun; a context manager.

    cpus are those of the destination's and the source's daemon (-1: any), from before the VM comes:
    a daemon looks at what it has when the import begins.
    """

    def __init__(self, *, mem, cpus=(-1, -1), backing="memfd", settings=None, world=World,
                 **shape):
        self.pages = mem * MIB // PAGE
        options = {"stream_delay_ms": 60000, **(settings or {})}
        self.world = world(destination={"import": options})
        try:
            pin(self.destination_pid, cpus[0])
            pin(self.source_pid, cpus[1])
            self.vm_source, self.vm = self.world.vms(mem=mem, fill=mem, backing=backing, **shape)
            self.vm.do("vcpu")
            self.world.offer(self.vm_source)
        except BaseException as error:
            self.world.__exit__(type(error), error, error.__traceback__)
            raise
        self._next = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return self.world.__exit__(*exception)

    @property
    def source_pid(self):
        """The source daemon's."""
        return self.world.source.process.pid

    @property
    def destination_pid(self):
        """The destination daemon's."""
        return self.world.destination.process.pid

    def seal(self):
        """Faults are served from now on."""
        self.vm_source.do("seal")

    def take(self, n):
        """So many pages that nobody has touched yet: their first place."""
        first, self._next = self._next, self._next + n
        if self._next > self.pages:
            raise Failure(f"only {self.pages} pages to touch")
        return first

    def touch(self, n, **words):
        """The guest touches n more pages; what it saw, and what that cost the daemons."""
        words = {"first": self.take(n), "pages": n, **words}
        command = "touch " + ",".join(f"{name}={value}" for name, value in words.items())
        mark = len(self.vm.lines)
        cost = Cost(destination=self.destination_pid, source=self.source_pid)
        self.vm.do(command)
        spent = cost.spent()
        line = self.vm.wait_line("TOUCHED", since=mark)
        return {**json.loads(line[len("TOUCHED "):]),
                "destination_us": spent["destination"] / 1e3 / n,
                "source_us": spent["source"] / 1e3 / n}

    def finish(self):
        """The stream fetches the rest; the figures of the import."""
        self.vm.do("running")
        self.vm.wait_event("released")
        self.vm_source.wait_event("done")
        return self.figures()

    def figures(self):
        """Those of the import so far."""
        return self.world.destination.imported("vm")


def placement_of(figures):
    """How an import's pages came into place."""
    pages = figures["pages"]
    return "continue" if 2 * pages["continued"] > pages["copied"] else "copy"


def divided(value, by):
    """None where that makes no sense."""
    return round(value / by, 4) if value is not None and by else None
