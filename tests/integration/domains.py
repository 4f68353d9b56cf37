# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon with libvirt's test driver, whose domains live in the daemon itself, and with no libvirt."""

import os

from world import Daemon, expect, host, mentions

# libvirt uses GLib's event loop and objects, whose locks and counts the thread sanitizer does not know;
# and takes its own locks in an order of its own.
RACES = "race:libglib-2.0.so.0\nrace:libvirt.so.0\ndeadlock:libvirt.so.0\n"


def _daemon(folder, uri, **settings):
    path = folder / "races"
    path.write_text(RACES)
    options = os.environ.get("TSAN_OPTIONS", "")
    os.environ["TSAN_OPTIONS"] = f"{options}:suppressions={path}"
    try:
        return Daemon(folder, "a", libvirt={"uri": uri, **settings})
    finally:
        os.environ["TSAN_OPTIONS"] = options


def connected():
    """Status says so, the daemon serves, and it ends well."""
    with host.workdir() as name, \
            _daemon(host.Path(name), "test:///default", enable="all") as daemon:
        daemon.wait("libvirt", lambda: daemon.stats()["libvirt"]["connected"], 10)
        said = daemon.stats()["libvirt"]
        expect(said == {"uri": "test:///default", "connected": True, "enable_all": True}, said)
        return said


def nobody_there():
    """One line, and the daemon serves."""
    with host.workdir() as name, \
            _daemon(host.Path(name), "test+unix:///default?socket=/none/such") as daemon:
        line = daemon.wait_log("cannot connect to", "/none/such")
        mentions(line, "trying again")
        expect(not daemon.stats()["libvirt"]["connected"], daemon.stats())
        return line


def not_wanted():
    """Without a word in the configuration there is none."""
    with host.workdir() as name, Daemon(host.Path(name), "a") as daemon:
        said = daemon.stats()["libvirt"]
        expect(said == {"uri": "", "connected": False, "enable_all": False}, said)
        expect("libvirt" not in daemon.log(), daemon.log())
        return said
