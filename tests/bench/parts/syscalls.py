# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls of threads, counted by perf, or by strace where perf cannot."""

import re
import shutil
import signal
import subprocess
import time

ATTACH_S = 0.5
# Those on the way of a fault; whatever else there is counts in the total.
NAMES = ("io_uring_enter", "read", "poll", "ppoll", "ioctl", "pwrite64", "sendto", "sendmsg",
         "recvfrom", "futex")


class Counter:
    """Counts the system calls of a process or some of its threads while it is open."""

    def __init__(self, *, pid=None, tids=()):
        self.counts = {}
        self.problem = None
        self._tool = None
        self._process = None
        self._pid, self._tids = pid, tids

    def __enter__(self):
        for tool, words in (("perf", self._perf()), ("strace", self._strace())):
            if not shutil.which(tool):
                continue
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL,
                                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                             text=True)
            time.sleep(ATTACH_S)
            if self._process.poll() is None:
                self._tool = tool
                return self
            self.problem = self._process.stderr.read().strip()[-200:]
        self.problem = self.problem or "neither perf nor strace is installed"
        return self

    def __exit__(self, *_):
        if not self._tool:
            return
        self._process.send_signal(signal.SIGINT)
        text = self._process.communicate(timeout=30)[1]
        self.counts = _perf_counts(text) if self._tool == "perf" else _strace_counts(text)

    def _perf(self):
        events = ",".join(["raw_syscalls:sys_enter",
                           *(f"syscalls:sys_enter_{name}" for name in NAMES)])
        target = ["-p", str(self._pid)] if self._pid else ["-t", ",".join(map(str, self._tids))]
        return ["perf", "stat", "-x", ";", "-e", events, *target]

    def _strace(self):
        targets = [str(self._pid)] if self._pid else [str(tid) for tid in self._tids]
        return ["strace", "-c", *(["-f"] if self._pid else []),
                *(word for target in targets for word in ("-p", target))]


def _perf_counts(text):
    counts = {}
    for line in text.splitlines():
        words = line.split(";")
        if len(words) > 2 and words[0].isdigit():
            name = words[2].removeprefix("syscalls:sys_enter_")
            counts["all" if name == "raw_syscalls:sys_enter" else name] = int(words[0])
    return counts


def _strace_counts(text):
    counts = {}
    for line in text.splitlines():
        found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if found:
            counts["all" if found[2] == "total" else found[2]] = int(found[1])
    return counts
