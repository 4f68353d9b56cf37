# SPDX-License-Identifier: GPL-2.0-or-later
"""Our daemon on a host, and our files as an installation puts them there."""

import os
import subprocess

from harness.postcopyd import BUILD, Daemon, DaemonError

from .namespace import Program

SOCKET = "/run/postcopyd/postcopyd.sock"
PORT = 16520


class HostDaemon(Daemon):
    """postcopyd on a host, where an installation would have it; a context manager."""

    starter = Program

    def __init__(self, where, **settings):
        self.prefix = tuple(where.namespace.prefix)
        sections = {
            "daemon": {"socket": SOCKET, "runtime_dir": "/run/postcopyd", "group": "kvm"},
            "peer": {"insecure_plaintext": "yes"}}
        for section, keys in settings.items():
            sections.setdefault(section, {}).update(keys)
        super().__init__(where.folder, "postcopyd", host_address=where.address, port=PORT,
                         reached_by=where.path(SOCKET), **sections)

    def send_signal(self, number):
        """To the daemon itself: SIGSTOP, SIGCONT …"""
        self.process.send_signal(number)


def install(where):
    """Puts this build's files on a host as `cmake --install` does; the folder they went to."""
    staged = where.folder / "staged"
    done = subprocess.run(["cmake", "--install", BUILD], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False,
                          env=dict(os.environ, DESTDIR=str(staged)))
    if done.returncode:
        raise DaemonError(f"cmake --install: {done.stderr.strip()}")
    return staged
