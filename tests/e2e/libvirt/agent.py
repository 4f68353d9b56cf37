# SPDX-License-Identifier: GPL-2.0-or-later
"""Our daemon and a real libvirtd: tokens, the switch to post-copy, and what must never be left behind."""

import json
import os
import re
import signal
import time

from harness.postcopyd import expect

from .daemon import HostDaemon
from .domains import Domain
from .hosts import URI, pair
from .plain import RATE, small

NAMESPACE = "urn:postcopyd:domain:1"
ENABLED = f'<postcopyd:migration xmlns:postcopyd="{NAMESPACE}" enabled="yes"/>'
DISABLED = ENABLED.replace("yes", "no")
CAPABILITY = "x-ignore-shared"


def daemon(where, **settings):
    """Our daemon on a host, with that host's libvirt."""
    return HostDaemon(where, libvirt={"uri": URI, **settings})


def mark(where, domain):
    """What the running domain's metadata say of us; '' if nothing."""
    return where.virsh("metadata", "--live", domain.name, NAMESPACE, check=False).stdout.strip()


def token(where, domain):
    """Its token, or None."""
    found = re.search(r'token="([0-9a-f]{64})"', mark(where, domain))
    return found and found[1]


def wait_token(watched, where, domain, *others):
    """Its token, once it has one that is none of the others."""
    def look():
        found = token(where, domain)
        return found if found not in others else None
    return watched.wait("token", look, 20)


def logged(watched, *words):
    """The line of the daemon's log with these words."""
    def look():
        return next((line for line in watched.log().splitlines()
                     if all(word in line for word in words)), None)
    return watched.wait(f"line with {words}", look, 20)


def monitor(where, domain, command, **arguments):
    """What QEMU answers, by way of libvirt."""
    line = json.dumps({"execute": command, "arguments": arguments})
    answer = json.loads(where.virsh("qemu-monitor-command", domain.name, line).stdout)
    return answer["return"]


def capability(where, domain):
    """Whether it is on."""
    found = monitor(where, domain, "query-migrate-capabilities")
    return next(one["state"] for one in found if one["capability"] == CAPABILITY)


def set_capability(where, domain):
    """Switches it on, behind libvirt's back."""
    monitor(where, domain, "migrate-set-capabilities",
            capabilities=[{"capability": CAPABILITY, "state": True}])
    expect(capability(where, domain), "it did not go on")


def connected(watched):
    """What status says of libvirt."""
    return watched.stats()["libvirt"]


def starts_postcopy():
    """A domain that takes part goes by post-copy, and has a token of its own on each host."""
    with pair() as both, daemon(both.a) as here, daemon(both.b) as there, \
            Domain(both, small(), metadata=ENABLED) as domain:
        here.wait("libvirt", lambda: connected(here)["connected"])
        domain.start()
        first = wait_token(here, both.a, domain)
        expect(first in both.a.virsh("dumpxml", domain.name).stdout, "not in the domain's XML")
        with domain.migrate(postcopy=RATE) as migration:
            migration.wait_states(("paused", "post-copy"), ("running", "post-copy"))
            took = migration.succeed()
        logged(here, domain.name, "post-copy after pass 1")
        second = wait_token(there, both.b, domain, first, None)
        expect(second != first, "the token came along")
        return f"{took:.1f} s, {domain.verified(1)}, {connected(here)}"


def leaves_others_alone():
    """One that said no is not touched, whoever else takes part."""
    with pair() as both, daemon(both.a, enable="all") as here, \
            Domain(both, small(), metadata=DISABLED) as domain, \
            Domain(both, small(fill_mb=8)) as other:
        domain.start()
        other.start()
        wait_token(here, both.a, other, None)
        with domain.migrate() as migration:
            here.wait("second pass",
                      lambda: int(both.a.job(domain.name).get("Iteration", 0)) >= 1)
            time.sleep(1)
            states = migration.states()
            expect(states[0] == ("running", "booted"), f"states {states}")
            both.a.virsh("domjobabort", domain.name)
            expect(migration.wait() != 0, "not aborted")
        expect(token(both.a, domain) is None, "it has a token")
        expect("post-copy after" not in here.log(), here.log())
        return domain.verified(0)


def two_migrations():
    """One is cancelled before it was due; the next one is switched like the first would have been."""
    with pair() as both, daemon(both.a, start_postcopy=0) as here, \
            Domain(both, small(), metadata=ENABLED) as domain:
        domain.start()
        first = wait_token(here, both.a, domain)
        with domain.migrate() as migration:
            here.wait("first pass",
                      lambda: int(both.a.job(domain.name).get("Iteration", 0)) >= 1)
            time.sleep(0.5)
            expect(migration.states()[0][0] == "running", f"states {migration.states()}")
            both.a.virsh("domjobabort", domain.name)
            expect(migration.wait() != 0, "not aborted")
        here.configure(libvirt={"start_postcopy": 1})
        here.stop()
        here.start()
        wait_token(here, both.a, domain, first, None)
        with domain.migrate(postcopy=RATE) as migration:
            migration.succeed()
        logged(here, domain.name, "post-copy after pass 1")
        return domain.verified(1)


def libvirtd_restarts():
    """It goes and comes: one line each, the same token, and post-copy is started as before."""
    with pair() as both, daemon(both.a) as here, Domain(both, small(), metadata=ENABLED) as domain:
        domain.start()
        first = wait_token(here, both.a, domain)
        both.a.stop_libvirtd()
        logged(here, "connection to", "lost")
        here.wait("loss", lambda: not connected(here)["connected"])
        both.a.start_libvirtd()
        both.a.wait_libvirtd()
        here.wait("libvirt", lambda: connected(here)["connected"])
        time.sleep(1)
        expect(token(both.a, domain) == first, "another token")
        with domain.migrate(postcopy=RATE) as migration:
            migration.succeed()
        logged(here, domain.name, "post-copy after pass 1")
        expect(here.log().count("lost") == 1 and here.log().count("libvirt: connected") == 2,
               here.log())
        return domain.verified(1)


def capability_left_behind():
    """x-ignore-shared that a driver left on is switched off; the domain is saved and restored."""
    with pair() as both, Domain(both, small(), metadata=ENABLED) as domain:
        domain.start()
        set_capability(both.a, domain)
        with daemon(both.a) as here:
            said = logged(here, domain.name, "is off again")
            expect(not capability(both.a, domain), "still on")
            saved = "/var/lib/libvirt/images/saved"
            both.a.virsh("save", domain.name, saved)
            domain.here = domain.at(both.a)  # a new QEMU writes its records anew
            both.a.virsh("restore", saved)
        domain.here.wait_ticks(2)
        return f"{said}; {domain.verified(0)}"


def hanging_qemu():
    """One QEMU hangs: other domains are served, and the daemon ends when it is told to."""
    with pair() as both, Domain(both, small(fill_mb=8), metadata=ENABLED) as stuck, \
            Domain(both, small(fill_mb=8), metadata=ENABLED) as domain:
        stuck.start()
        domain.start()
        pid = int(stuck.here.host.path(f"/run/libvirt/qemu/{stuck.name}.pid").read_text())
        both.a.run("kill", "-STOP", str(pid))
        try:
            with daemon(both.a) as here:
                wait_token(here, both.a, domain)
                time.sleep(1)
                begin = time.monotonic()
                status = here.stop()
                took = time.monotonic() - begin
                expect(status == 0 and took < 4, f"exit {status} after {took:.1f} s: {here.log()}")
                expect("does not give back" in here.log(), here.log())
        finally:
            both.a.run("kill", "-CONT", str(pid))
        return f"ended in {took:.1f} s"


def silent_libvirtd():
    """libvirtd itself hangs: the daemon ends when it is told to."""
    with pair() as both, daemon(both.a) as here:
        here.wait("libvirt", lambda: connected(here)["connected"])
        os.kill(both.a.libvirtd.inner, signal.SIGSTOP)
        try:
            begin = time.monotonic()
            status = here.stop()
            took = time.monotonic() - begin
        finally:
            os.kill(both.a.libvirtd.inner, signal.SIGCONT)
        expect(status == 0 and took < 4, f"exit {status} after {took:.1f} s: {here.log()}")
        return f"ended in {took:.1f} s"
