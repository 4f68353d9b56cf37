# SPDX-License-Identifier: GPL-2.0-or-later
"""A service manager as systemd is to its services: it keeps the file descriptors that they store.

Run as a program it is what systemd's fork does: python3 manager.py FD,FD NAME:NAME WORD...
"""

import array
import os
import re
import socket
import subprocess
import sys
import threading

FDS_START = 3
MAX = 4096


class Manager:
    """Starts one service after the other; a context manager.

    tells: it tells the service how much it stores, as systemd 254 does, which also keeps it over a stop.
    """

    def __init__(self, path, tells=True):
        self.path = str(path)
        self.tells = tells
        self.deaf = False  # messages wait, as for a manager that hangs
        self.states = []   # messages that came without a file descriptor
        self._kept = []    # (name, fd)
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(0.1)
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open = False
        self._thread.join()
        self._socket.close()
        for _, fd in self._kept:
            os.close(fd)

    def start(self, words, popen=subprocess.Popen, **streams):
        """A Popen of the daemon, which is handed what is kept."""
        words = [str(word) for word in words]
        at = next(i for i, word in enumerate(words) if word.endswith("/postcopyd"))
        with self._lock:
            names = ":".join(name for name, _ in self._kept)
            fds = [fd for _, fd in self._kept]
            environment = {**os.environ, "NOTIFY_SOCKET": self.path}
            if self.tells:
                environment["FDSTORE"] = str(MAX)
            return popen([*words[:at], sys.executable, __file__, ",".join(map(str, fds)), names,
                          *words[at:]], pass_fds=fds, env=environment, **streams)

    def names(self):
        """Of what is kept, sorted."""
        with self._lock:
            return sorted(name for name, _ in self._kept)

    def replace(self, end, make):
        """Has make(fd) return other fds in place of the one whose name ends so."""
        with self._lock:
            at, (name, fd) = next((i, kept) for i, kept in enumerate(self._kept)
                                  if kept[0].endswith(end))
            self._kept[at:at + 1] = [(name, new) for new in make(fd)]
            os.close(fd)

    def forget(self):
        """All of it, as when a service is stopped under an older systemd."""
        with self._lock:
            for _, fd in self._kept:
                os.close(fd)
            self._kept.clear()

    def _serve(self):
        while self._open:
            if self.deaf:
                threading.Event().wait(0.05)
                continue
            try:
                data, controls, *_ = self._socket.recvmsg(4096, socket.CMSG_SPACE(4 * 253))
            except TimeoutError:
                continue
            fds = array.array("i")
            for level, kind, content in controls:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(content)
            self._take(data.decode(), list(fds))

    def _take(self, text, fds):
        words = dict(line.split("=", 1) for line in text.splitlines())
        with self._lock:
            self.states.append(text)
            if words.get("FDSTORE") == "1":
                for fd in fds:
                    self._keep(words, fd)
                return
            if words.get("FDSTOREREMOVE") == "1":
                for name, fd in self._kept:
                    if name == words["FDNAME"]:
                        os.close(fd)
                self._kept = [kept for kept in self._kept if kept[0] != words["FDNAME"]]
        for fd in fds:  # a barrier
            os.close(fd)

    def _keep(self, words, fd):
        """systemd keeps one of several that are the same file description, and what can be polled only until
        it hangs up."""
        assert re.fullmatch(r"[ -9;-~]{1,255}", words["FDNAME"]), words
        assert words["FDPOLL"] == "0", words
        if len(self._kept) >= MAX or any(_same(fd, other) for _, other in self._kept):
            os.close(fd)
        else:
            self._kept.insert(0, (words["FDNAME"], fd))


def _same(one, other):
    """True of two fds of one file description, which share the position."""
    if os.fstat(one)[:3] != os.fstat(other)[:3]:
        return False
    before = os.lseek(one, 0, os.SEEK_CUR)
    os.lseek(one, before + 1, os.SEEK_SET)
    same = os.lseek(other, 0, os.SEEK_CUR) == before + 1
    os.lseek(one, before, os.SEEK_SET)
    return same


def _become(fds, names, words):
    """Its place is the service's."""
    moved = [os.dup(fd) for fd in fds]
    high = max(moved + [FDS_START + len(fds)]) + 1
    moved = [os.dup2(fd, high + at) for at, fd in enumerate(moved)]
    for at, fd in enumerate(moved):
        os.dup2(fd, FDS_START + at, inheritable=True)
    os.closerange(FDS_START + len(fds), high + len(fds) + 1)
    if fds:
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)),
                          LISTEN_FDNAMES=names)
    os.execv(words[0], words)


if __name__ == "__main__":
    _become([int(fd) for fd in sys.argv[1].split(",") if fd], sys.argv[2], sys.argv[3:])
