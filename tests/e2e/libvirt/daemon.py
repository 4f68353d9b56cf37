# SPDX-License-Identifier: GPL-2.0-or-later
"""Our daemon on a host."""

from harness.operator import Operator
from harness.postcopyd import Daemon

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

    def operator(self, timeout=2.0):
        """A connection for requests, where starting postcopyctl takes too long."""
        return Operator(self.socket, timeout)

    def wait_libvirt(self, timeout=10.0):
        """Waits until it knows the host's domains."""
        def connected():
            with self.operator() as operator:
                return operator.ask("status").get("libvirt", {}).get("connected")
        self.wait("libvirt", connected, timeout)

    def send_signal(self, number):
        """To the daemon itself: SIGSTOP, SIGCONT …"""
        self.process.send_signal(number)
