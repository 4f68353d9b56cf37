# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that arrived with our help goes on to hosts that never heard of us, as it would without."""

from harness.postcopyd import expect

from .assist import goes
from .assisted import assisted
from .direct import once_more
from .hosts import USER
from .plain import RATE

LIBRARY = "libpostcopy-qemu.so"
SAVED = "/var/lib/libvirt/images/saved"


def root():
    """By post-copy, of which QEMU alone takes care there; and back, where our hook is."""
    return _onward({"postcopy": RATE, "switch": True})


def user():
    """A QEMU that may not catch faults by itself: without us its host takes no post-copy."""
    return _onward({"precopy": None, "ordinary": True}, USER)


def unowned():
    """The same where libvirt leaves files' owners alone."""
    return _onward({"precopy": None, "ordinary": True}, USER, qemu_conf="dynamic_ownership = 0")


def saved():
    """Its memory goes to a file, which is started from where nothing of ours is left."""
    with assisted() as case:
        there = goes(case, "--persistent")
        where = case.domain.here.host
        where.virsh("save", case.domain.name, SAVED)
        case.source.stop()
        where.uninstall()
        here = case.domain.here = case.domain.at(where)
        where.virsh("restore", SAVED)
        _bare(case, here)
        return f"{there}; restored: {once_more(here)}"


def _onward(how, *user_of_qemu, **settings):
    with assisted(*user_of_qemu, **settings) as case:
        there = goes(case, "--persistent")
        _has_ours(case.domain.here)
        bare = case.destination
        bare.stop()
        where = case.pair.other(case.domain.here.host)
        where.uninstall()
        on = _moves(case, how, 2)
        expect(case.domain.here.host is where, f"it is on {case.domain.here.host.name}")
        _bare(case, case.domain.here)
        back = _moves(case, how, 3)
        _has_ours(case.domain.here)
        return f"{there}; on: {on}; back: {back}"


def _moves(case, how, epoch):
    with case.domain.migrate("--persistent", **how) as migration:
        took = migration.succeed()
    return f"{took:.1f} s, {case.domain.verified(epoch)}"


def _live(at):
    return at.host.virsh("dumpxml", at.domain).stdout


def _has_ours(at):
    """Its QEMU got what our hook adds, and found it."""
    text = _live(at)
    expect(LIBRARY in text and "chardev=postcopyd" in text, f"not ours: {text}")
    expect("cannot be preloaded" not in at.stderr(), at.stderr()[-500:])


def _bare(case, at):
    """Its QEMU was started with the same additions, of which the library was not to be had."""
    text = _live(at)
    expect(LIBRARY in text and "chardev=postcopyd" in text, f"nothing travelled: {text}")
    complaint = [line for line in at.stderr().splitlines() if LIBRARY in line and "ld.so" in line]
    expect(complaint and "ignored" in complaint[-1], at.stderr()[-800:])
    maps = at.host.run("cat", f"/proc/{at.pid()}/maps").stdout
    expect(LIBRARY not in maps, "it has our library")
    monitor = f"/run/libvirt/qemu/dbus/postcopyd.tunnelmigrate.dest.{case.domain.name}"
    owner = at.host.run("stat", "-c", "%F %U", monitor).stdout.strip()
    expect(owner == f"socket {at.host.user}", f"{monitor}: {owner}")
