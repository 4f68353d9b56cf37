# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's hook, run as libvirt runs it: it helps where it can and is never in the way."""

import errno
import re
import socket
import subprocess
import time

from hook_world import (GREETING, QEMU, TOKEN, UUID, FakeMonitor, Monitor, Site, domain, scripted)
from world import MIB, World, expect, mentions, postcopyd


def _values(xml, element):
    return re.findall(rf'<qemu:{element} (?:name="(\w+)" )?value="([^"]*)"/>', xml)


def _untouched(site, xml, *words):
    """The filter prints nothing, and says why if words are given."""
    done = site.migrate(xml)
    expect(done.stdout == "", done.stdout)
    mentions(done.stderr, *words)
    expect(bool(done.stderr) == bool(words), done.stderr)


def other_operations():
    """Whatever else libvirt tells is none of our business: no answer, and no wait for the XML."""
    site = None
    with Site() as site:
        for operation, step in (("prepare", "begin"), ("start", "begin"), ("started", "end"),
                                ("stopped", "begin"), ("reconnect", "begin"), ("attach", "begin"),
                                ("migrate", "end"), ("restore", "end"), ("nonsense", "")):
            command = [postcopyd.program("50-postcopyd"), "guest", operation, step, "-"]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True) as hook:
                expect(hook.wait(2) == 0, f"{operation}: {hook.returncode}")
                expect(hook.stdout.read() == "", operation)
        for words in ([], ["guest"], ["guest", "migrate"]):
            done = subprocess.run([postcopyd.program("50-postcopyd"), *words], input="",
                                  capture_output=True, text=True, check=False, timeout=2)
            expect((done.returncode, done.stdout) == (0, ""), done)


def adds_for_who_takes_part():
    """Who opted in, or all if the host says so; never who opted out."""
    with Site() as site:
        added = site.migrate(domain()).stdout
        expect(f'xmlns:qemu="{QEMU}"' in added, added)
        expect(_values(added, "arg") == [
            ("", "-chardev"),
            ("", f"socket,id=postcopyd,path={site.monitor},server=on,wait=off"),
            ("", "-mon"), ("", "chardev=postcopyd,id=postcopyd,mode=control")], added)
        expect(_values(added, "env") == [("LD_PRELOAD", str(site.preload)),
                                         ("POSTCOPY_SOCKET", str(site.socket))], added)
        expect(site.migrate(added).stdout == added, "not the same a second time")
        _untouched(site, domain(attributes="enabled='no'"))
        _untouched(site, domain(attributes=f"token='{TOKEN}'"))
        _untouched(site, f"<domain><name>guest</name><uuid>{UUID}</uuid></domain>")
        site.configure(enable="all")
        for attributes in ("enabled='yes'", f"token='{TOKEN}'"):
            expect("LD_PRELOAD" in site.migrate(domain(attributes=attributes)).stdout, attributes)
        _untouched(site, domain(attributes="enabled='no'"))
        removed = site.migrate(added.replace('enabled="yes"', 'enabled="no"')).stdout
        expect("<domain" in removed and "commandline" not in removed, removed)


def restored_without_us():
    """A guest that was saved here starts anywhere again."""
    with Site() as site:
        added = site.arriving()
        site.monitor.parent.rmdir()
        site.preload.unlink()
        done = site.hook("restore", "begin", added)
        expect(done.returncode == 0 and done.stderr == "", done)
        expect("<name>guest" in done.stdout and "commandline" not in done.stdout, done.stdout)
        expect('enabled="yes"' in done.stdout, "it does not take part any more")
        for xml in (domain(), ""):
            done = site.hook("restore", "begin", xml)
            expect((done.returncode, done.stdout) == (0, ""), done)


def trouble_leaves_it_as_it_is():
    """What cannot work here is not added, and what came along from another host is taken out."""
    with Site() as site:
        added = site.arriving()
        for xml in ("", "no XML", "<domain", f"<network><uuid>{UUID}</uuid></network>",
                    "<domain><uuid>../../x</uuid></domain>", "<domain/>",
                    f"<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>{domain()}"):
            _untouched(site, xml, "the XML")

        def check(*words):
            _untouched(site, domain(), *words)
            done = site.migrate(added)
            expect("commandline" not in done.stdout and "<name>guest" in done.stdout, done.stdout)
            mentions(done.stderr, *words)

        site.preload.unlink()
        check("libpostcopy-qemu.so", "No such file")
        site.preload.write_bytes(b"")
        site.config.write_text("[daemon\n")
        check(str(site.config), "postcopyd --check")
        site.configure()
        with socket.socket(socket.AF_UNIX) as used:
            used.bind(str(site.monitor))
            used.listen()
            check("in use")
        expect("LD_PRELOAD" in site.migrate(domain()).stdout, "a socket that nobody uses")
        expect(not site.monitor.exists(), "it is still there")
        site.monitor.parent.rmdir()
        check("is no folder", "libvirt 6.0")


def names():
    """The monitor's path fits a socket, or is not added; a name is never part of another path."""
    with Site() as site:
        most = 107 - len(str(site.monitor)) + len("guest")
        for length, fits in ((most, True), (most + 1, False), (255, False)):
            done = site.hook("migrate", "begin", domain(), name="l" * length)
            expect(done.returncode == 0 and ("-chardev" in done.stdout) == fits, done)
            expect(fits or "too long" in done.stderr, done)
        done = site.hook("migrate", "begin", domain(), name="a,b")
        expect(f"path={site.monitor.parent}/{site.monitor.name[:-5]}a,,b,server" in done.stdout,
               done)
        for name in ("", "a/b", "../x"):
            done = site.hook("migrate", "begin", domain(), name=name)
            expect((done.returncode, done.stdout) == (0, ""), done)
            mentions(done.stderr, "no usable name")


def labelled():
    """A domain whose QEMU is confined in a way of its own might not start with our additions."""
    def label(attributes):
        return domain(inside=f"<seclabel {attributes}><label>+1234:+1234</label></seclabel>")

    with Site() as site:
        for model in ("dac", "apparmor"):
            _untouched(site, label(f"type='static' model='{model}' relabel='yes'"), "seclabel", model)
            expect("-mon" in site.migrate(label(f"type='dynamic' model='{model}'")).stdout, model)
        _untouched(site, label("type='static'"), "seclabel")
        expect("-mon" in site.migrate(label("type='static' model='selinux'")).stdout, "SELinux")
        arrived = site.arriving().replace(
            "<devices/>", "<devices/><seclabel type='static' model='dac'/>")
        done = site.migrate(arrived)
        expect("<name>guest" in done.stdout and "commandline" not in done.stdout, done.stdout)


def slow_reader():
    """libvirt gets the whole domain, however slowly it reads, or hears that it did not."""
    with Site() as site:
        xml = domain(inside=f"<!-- {'x' * 300000} -->")
        whole = site.migrate(xml).stdout
        command = [postcopyd.program("50-postcopyd"), "guest", "migrate", "begin", "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env=site.environment()) as hook:
            hook.stdin.write(xml)
            hook.stdin.close()
            time.sleep(6)
            read = hook.stdout.read()
            expect(hook.wait(5) == 0, hook.returncode)
        expect(read == whole, f"{len(read)} of {len(whole)} bytes")
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run(command, input=xml, stdout=full, stderr=subprocess.PIPE,
                                  text=True, check=False, timeout=10, env=site.environment())
        expect(done.returncode == 1, done)
        mentions(done.stderr, "No space left")


def expects():
    """The daemon is told all that QEMU says of itself, and QEMU's monitor is free again afterwards."""
    with Site() as site:
        xml = site.arriving()
        daemon = site.daemon(lambda request: {})
        qemu = site.qemu("postcopy-ram")
        with Monitor(site.monitor) as monitor:
            monitor.ask("migrate-incoming", uri="tcp:127.0.0.1:0")
        done = site.hook("started", "begin", xml)
        expect((done.returncode, done.stdout, done.stderr) == (0, "", ""), done)
        expect(site.monitor.stat().st_mode & 0o7777 == 0o600, "others may connect")
        told = daemon.only()
        with Monitor(site.monitor) as monitor:
            tids = [cpu["thread-id"] for cpu in monitor.ask("query-cpus-fast")]
            address = monitor.human("gpa2hva 0x0")
            console = next(chardev["filename"] for chardev in monitor.ask("query-chardev")
                           if chardev["label"] == "console")
        expect(told["ports"] == [int(re.search(r":(\d+),", console).group(1))], f"{told} {console}")
        expect(len(tids) == 2, tids)
        expect({key: told[key] for key in ("op", "vm", "uuid", "pid", "mode", "token", "vcpus",
                                           "capabilities")} == {
            "op": "expect", "vm": "guest", "uuid": UUID, "pid": qemu.pid, "mode": "assist",
            "token": TOKEN, "vcpus": tids,
            "capabilities": {"postcopy-ram": True, "release-ram": False}}, told)
        regions = {region["id"]: region for region in told["regions"]}
        main = regions["pc.ram"]
        expect(main["length"] == 64 * MIB and main["guest_address"] == 0
               and main["page_size"] == 4096, main)
        expect(hex(main["address"]) in address, f"{main}: {address}")
        expect(set(regions) == {"pc.ram"}, f"firmware is none of it: {regions}")


def expects_nobody_for_less():
    """Without a token, with a QEMU that waits for nothing, or without our monitor: no request, no harm."""
    with Site() as site:
        xml = site.arriving()
        daemon = site.daemon(lambda request: {})
        expect(site.hook("started", "begin", domain()).stderr == "", "no monitor of ours")
        done = site.hook("started", "begin", xml)
        expect(done.returncode == 0, done)
        mentions(done.stderr, "cannot connect")
        site.qemu("postcopy-ram", "release-ram")
        done = site.hook("started", "begin", xml.replace(TOKEN, ""))
        expect(done.returncode == 0, done)
        mentions(done.stderr, "no token")
        expect(not daemon.requests, daemon.requests)
        done = site.hook("started", "begin", xml)
        expect(daemon.only()["capabilities"]["release-ram"] is True, daemon.requests)
    with Site() as site:
        xml = site.arriving()
        daemon = site.daemon(lambda request: {})
        with FakeMonitor(site, scripted({"query-status": {"status": "running"}})):
            done = site.hook("started", "begin", xml)
        expect((done.returncode, done.stderr) == (0, ""), done)
        expect(not daemon.requests, daemon.requests)


def daemon_says_no_to_expecting():
    """QEMU's own post-copy goes on without us, whatever the daemon says, or if it says nothing."""
    with Site() as site:
        xml = site.arriving()
        site.qemu("postcopy-ram")
        done = site.hook("started", "begin", xml)
        expect(done.returncode == 0, done)
        mentions(done.stderr, "no daemon answers")
        answers = iter([{"error": "not today"}, None])
        site.daemon(lambda request: next(answers))
        done = site.hook("started", "begin", xml)
        expect(done.returncode == 0, done)
        mentions(done.stderr, "not today")
        done = site.hook("started", "begin", xml)
        expect(done.returncode == 0 and done.stderr, done)
        expect(done.seconds < 7, f"{done.seconds:.1f} s")
        return f"{done.seconds:.1f} s for a silent daemon"


def arrives():
    """Direct mode: armed, QEMU's stream is to leave memory out; else everything stays as it is."""
    with Site() as site:
        xml = site.arriving()
        qemu = site.qemu()

        def run(status):
            done = site.hook("started", "begin", xml)
            expect(done.returncode == status, done)
            with Monitor(site.monitor) as monitor:
                return done.stderr, monitor.capability("x-ignore-shared")

        said, ignores = run(0)
        mentions(said, "no daemon answers")
        expect(not ignores, "no daemon")
        answers = iter([{"armed": False}, {}, {"error": "no such request", "errno": errno.EOPNOTSUPP},
                        {"error": "not you", "errno": errno.EPERM}, {"error": "who knows"},
                        {"error": "its memory differs", "errno": errno.ECANCELED},
                        {"armed": True}])
        daemon = site.daemon(lambda request: next(answers))
        for what in ("not announced", "no answer at all"):
            said, ignores = run(0)
            expect(said == "" and not ignores, f"{what}: {said}")
        for why in ("no such request", "not you", "who knows"):
            said, ignores = run(0)
            mentions(said, why)
            expect(not ignores, why)
        said, ignores = run(1)
        mentions(said, "its memory differs")
        expect(not ignores, "refused")
        said, ignores = run(0)
        expect(said == "" and ignores, said)
        expect([(r["op"], r["mode"], r["pid"]) for r in daemon.requests]
               == [("arrive", "direct", qemu.pid)] * 7, daemon.requests)


def arrives_without_the_capability():
    """Armed, but QEMU would send or expect memory all the same: the migration must not go on."""
    capabilities = [{"capability": "postcopy-ram", "state": False}]
    answers = _QUIET | {"query-migrate-capabilities": capabilities,
                        "migrate-set-capabilities": b'{"error": {"desc": "no such thing"}, '
                                                    b'"id": "postcopyctl-9"}\r\n'}
    with Site() as site:
        xml = site.arriving()
        site.daemon(lambda request: {"armed": True})
        with FakeMonitor(site, scripted(answers)):
            done = site.hook("started", "begin", xml)
        expect(done.returncode == 1, done)
        mentions(done.stderr, "postcopyd")


_QUIET = {
    "query-migrate": {},
    "query-status": {"status": "inmigrate"},
    "query-migrate-capabilities": [{"capability": "postcopy-ram", "state": True}],
    "query-cpus-fast": [],
    "human-monitor-command": lambda arguments: _MEMORY.get(arguments["command-line"], ""),
}
_MEMORY = {
    "info ramblock": "Block Name PSize Offset Used Total\r\n"
                     "pc.ram 4 KiB 0x0 0x4000000 0x4000000\r\n",
    "info mtree -f": "FlatView #0\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n"
                     "  0000000000000000-0000000003ffffff (prio 0, ram): pc.ram\r\n\r\n",
    "gpa2hva 0x0": "Host virtual address for 0x0 (pc.ram) is 0x7f0000000000\r\n",
}


def hostile_qemu():
    """A QEMU that lies, floods or is silent costs a few seconds at most, and the daemon hears nothing."""
    def flood(connection):
        connection.sendall(GREETING)
        event = b'{"event": "X", "timestamp": {"seconds": 0, "microseconds": 0}}\r\n' * 1000
        while True:
            connection.sendall(event)

    def endless(connection):
        connection.sendall(GREETING)
        while True:
            connection.sendall(b"a" * 65536)

    def silent(connection):
        connection.recv(1 << 16)
        time.sleep(8)

    many = [{"capability": "postcopy-ram", "state": True}] * 40000
    nested = b"[" * 200000 + b"]" * 200000 + b"\r\n"
    hostile = {
        "flood": flood, "endless line": endless, "silent": silent,
        "garbage": lambda connection: connection.sendall(b"\x00\xff\r\n"),
        "closes": lambda connection: None,
        "nested": scripted(_QUIET | {"query-status": nested}),
        "no memory": scripted(_QUIET | {"human-monitor-command": ""}),
        "no text": scripted(_QUIET | {"human-monitor-command": {}}),
        "nonsense": scripted(_QUIET | {"human-monitor-command": "A" * 1000000}),
    }
    with Site() as site:
        xml = site.arriving()
        daemon = site.daemon(lambda request: {})
        slowest = 0.0
        for what, play in hostile.items():
            with FakeMonitor(site, play):
                done = site.hook("started", "begin", xml)
            site.monitor.unlink()
            expect(done.returncode == 0 and done.stdout == "", f"{what}: {done}")
            mentions(done.stderr, "postcopyd")
            expect(done.seconds < 7, f"{what}: {done.seconds:.1f} s")
            expect(not daemon.requests, f"{what}: {daemon.requests}")
            slowest = max(slowest, done.seconds)
        with FakeMonitor(site, scripted(_QUIET | {"query-migrate-capabilities": many})):
            done = site.hook("started", "begin", xml)
        expect(daemon.only()["regions"][0]["length"] == 64 * MIB, f"{daemon.requests} {done}")
        site.monitor.unlink()
        # A guest that says it has no post-copy is asked after as one of direct mode.
        with FakeMonitor(site, scripted(_QUIET | {"query-migrate-capabilities": "yes"})):
            done = site.hook("started", "begin", xml)
        expect(done.returncode == 0 and daemon.requests[1]["op"] == "arrive", daemon.requests)
        return f"{slowest:.1f} s at most"


def another_process():
    """Whoever listens in QEMU's place is not taken for it."""
    with Site() as site:
        xml = site.arriving()
        daemon = site.daemon(lambda request: {})
        with FakeMonitor(site, scripted(_QUIET)):
            for pid in ("1", "", "x"):
                site.pid_file(pid)
                done = site.hook("started", "begin", xml)
                expect(done.returncode == 0, done)
                mentions(done.stderr, "listens process", "libvirt started")
            (site.folder / "guest.pid").unlink()
            mentions(site.hook("started", "begin", xml).stderr, "listens process")
        expect(not daemon.requests, daemon.requests)


def ends():
    """A QEMU's monitor does not outlive it, and one that is in use is left alone."""
    with Site() as site:
        for operation in ("stopped", "release"):
            with socket.socket(socket.AF_UNIX) as used:
                used.bind(str(site.monitor))
                used.listen()
                done = site.hook(operation, "end", domain())
                expect(done.returncode == 0 and site.monitor.exists(), f"in use: {done}")
            done = site.hook(operation, "end", domain())
            expect((done.returncode, done.stdout, done.stderr) == (0, "", ""), done)
            expect(not site.monitor.exists(), operation)
            expect(site.hook(operation, "end", domain()).returncode == 0, "nothing to remove")
        site.monitor.write_text("no socket")
        site.hook("release", "end", domain())
        expect(site.monitor.exists(), "a file that is no socket")


def real_daemon():
    """The hook has QEMU connect where a daemon listens; nothing that QEMU needs depends on a daemon."""
    with World() as world, Site() as site:
        done = site.hook("migrate", "begin", domain(), POSTCOPYD_CONFIG=world.folder / "b.conf")
        expect(f"path={site.monitor}," in done.stdout, done)
        expect(str(world.destination.socket) in done.stdout, done)
        expect(sorted(path.name for path in (world.folder / "b.run").iterdir()) == ["relay"],
               list((world.folder / "b.run").iterdir()))
