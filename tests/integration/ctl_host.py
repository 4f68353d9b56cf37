# SPDX-License-Identifier: GPL-2.0-or-later
"""postcopyctl's commands about this host and libvirt: check, jobs, enable, disable."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

from hook_world import Site
from world import World, expect, host, mentions, postcopyd

TEST = "test:///default"
LEVELS = {"ok", "warn", "fail"}


def _findings(done):
    """Those of check --json, by id; the exit status has to be theirs."""
    answer = json.loads(done.stdout)
    expect(all(f["level"] in LEVELS and f["text"] and "\n" not in f["text"] + f["advice"]
               for f in answer["checks"]), answer)
    failed = [f for f in answer["checks"] if f["level"] == "fail"]
    expect(answer["ok"] == (not failed), answer)
    expect(done.returncode == (1 if failed else 0), f"{done.returncode}: {done.stderr}")
    if failed:
        mentions(done.stderr, f"{len(failed)} of {len(answer['checks'])} checks failed")
    return {finding["id"]: finding for finding in answer["checks"]}


def _check(daemon, config, *words, json_too=True, run="/nonexistent", qemu="/nonexistent"):
    words = ["check", *(["--json"] if json_too else []), "--connect", TEST, *words]
    return subprocess.run(
        [postcopyd.program("postcopyctl"), "--socket", daemon, *words], capture_output=True,
        text=True, check=False, timeout=60,
        env={**os.environ, "POSTCOPYD_CONFIG": str(config), "POSTCOPYD_LIBVIRT_RUN": str(run),
             "POSTCOPYD_QEMU_CONF": str(qemu)})


def check():
    """With a daemon: what it says is true of this host, and the same for people as for programs."""
    with World() as world:
        config = world.folder / "b.conf"
        done = _check(world.destination.socket, config)
        found = _findings(done)
        expect(found["daemon"]["level"] == "ok"
               and f"pid {world.destination.process.pid}" in found["daemon"]["text"], found)
        for name in ("uffd", "uffd-shmem", "io_uring", "libvirt"):
            expect(found[name]["level"] == "ok", found[name])
        expect(found["listen"]["level"] == "warn" and "127.0.0.1" in found["listen"]["text"],
               found["listen"])
        expect(found["monitors"]["level"] == "fail" and "libvirtd" in found["monitors"]["advice"],
               found["monitors"])
        expect(("0 of 1" in found["domains"]["text"]
                or found["domains"]["level"] == "warn"), found["domains"])
        people = _check(world.destination.socket, config, json_too=False)
        expect(people.returncode == done.returncode, people)
        expect([line.split()[:2] for line in people.stdout.splitlines()]
               == [[f["level"], name] for name, f in found.items()], people.stdout)
        return f"{len(found)} findings"


def check_config():
    """What is wrong in the configuration is told in the daemon's own words."""
    with World() as world:
        config = world.folder / "broken.conf"
        for text, *words in (("[libvirt]\nurl = x\n", "broken.conf", "no key 'url'"),
                             ("[libvirt]\nenable = al\n", "enable", "opted or all"),
                             ("[libvrt]\n", "no section [libvrt]")):
            config.write_text(text)
            found = _findings(_check(world.destination.socket, config))["config"]
            expect(found["level"] == "fail", found)
            mentions(found["text"], *words)
        config.write_text("[libvirt]\nenable = all\n")
        found = _findings(_check(world.destination.socket, config))["config"]
        expect(found["level"] == "ok", found)


def check_socket():
    """QEMUs that may not connect are noticed before one of them tries in vain."""
    with World() as world:
        qemu, config = world.folder / "qemu.conf", world.folder / "none.conf"
        daemon = Path(world.destination.socket)
        world.folder.chmod(0o755)

        def found():
            return _findings(_check(daemon, config, qemu=qemu))["socket"]

        qemu.write_text('#user = "root"\nuser = "nobody"\ngroup = "nogroup"\n')
        shutil.chown(daemon, group="root")
        closed = found()
        expect(closed["level"] == "fail" and "nogroup" in closed["advice"], closed)
        mentions(closed["text"], "nobody", str(daemon), "root")
        shutil.chown(daemon, group="nogroup")
        expect(found()["level"] == "ok", found())
        daemon.chmod(0o640)
        expect(found()["level"] == "fail", found())
        daemon.chmod(0o606)
        expect(found()["level"] == "fail", "a group without the right is not everybody")
        daemon.chmod(0o660)
        world.folder.chmod(0o700)
        expect(str(world.folder) in found()["text"], found())
        qemu.write_text('user = "+0"\n')
        expect(found()["level"] == "ok", found())
        qemu.write_text('user = "no-such-user"\n')
        expect(found()["level"] == "warn", found())


def check_rdma():
    """Whether memory can travel by RDMA, and what to do: with no device, and settings that want one."""
    if any(Path("/sys/class/infiniband").glob("*")):
        raise host.Unavailable("this host has RDMA devices")
    named = {"networks": "198.51.100.0/24, 127.0.0.0/8", "pinned": "512G"}
    for rdma, transport, wanted in (
            ({}, "auto", {"rdma": ("ok", "travels over TCP", "")}),
            ({}, "rdma", {"rdma": ("fail", "networks is empty", "both")}),
            ({"peers": "10.1.0.0/16 = tcp, 10.1.1.0/24 = rdma"}, "auto",
             {"rdma": ("fail", "[rdma] peers wants rdma for some hosts", "both")}),
            ({"peers": "10.1.0.0/16=auto,10.1.1.0/24=tcp"}, "auto",
             {"rdma": ("ok", "travels over TCP", "")}),
            (named, "auto", {"rdma": ("warn", "no RDMA device", "rdma link show"),
                             "rdma-network": ("warn", "no address of this host is in [rdma] networks"
                                              " = 198.51.100.0/24, 127.0.0.0/8 (no RDMA device is "
                                              "at a loopback address", "restart"),
                             "rdma-memory": ("ok", "pinned = 512 GiB", "")}),
            (named, "rdma", {"rdma": ("fail", "no VM can arrive or leave", "driver"),
                             "rdma-network": ("fail", "no VM can arrive or leave with [peer] "
                                              "transport = rdma", "between the hosts")}),
            (named | {"peers": "10.1.1.0/24 = rdma"}, "auto",
             {"rdma": ("fail", "for which [rdma] peers wants rdma", "driver"),
              "rdma-network": ("fail", "for which [rdma] peers wants rdma", "between the hosts")}),
            (named | {"peers": "10.1.1.0/24 = auto"}, "tcp", {"rdma": ("warn", "no RDMA device", "driver")}),
            (named | {"peers": "10.1.1.0/24 = tcp"}, "tcp",
             {"rdma": ("ok", "[peer] transport = tcp forbids RDMA", "")})):
        with World(destination={"rdma": rdma, "peer": {"transport": transport}}) as world:
            found = _findings(_check(world.destination.socket, world.folder / "none.conf"))
            vetoed = "forbids" in found["rdma"]["text"]
            expect(("rdma-memory" in found) == ("networks" in rdma and not vetoed), found)
            expect("driver" not in found["rdma"]["advice"] or not vetoed, found)
            for name, (level, said, advice) in wanted.items():
                expect(found[name]["level"] == level, found[name])
                mentions(found[name]["text"], said)
                mentions(found[name]["advice"], advice)


def _may_lock():
    """CAP_IPC_LOCK, which a daemon started by us then has too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("CapEff:")[1].split()[0], 16) >> 14 & 1


def check_memlock():
    """A daemon without the right to lock as much as it may pin."""
    with host.workdir() as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = folder / "x.conf"
        (folder / "run").mkdir()
        shutil.chown(folder / "run", "nobody", "nogroup")
        config.write_text(f"[daemon]\nsocket = {folder}/run/s\nruntime_dir = {folder}/run/r\n"
                          f"[peer]\nlisten = 127.0.0.1:{postcopyd.free_port()}\n"
                          "[rdma]\nnetworks = 198.51.100.0/24\npinned = 8M\n")
        nobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        # Last, a daemon that is root, with the capability: the limit does not bind it.
        for limit, level, user in ((1 << 20, "warn", nobody), (8 << 20, "ok", nobody),
                                   (1 << 20, "ok", [])):
            if not user and not _may_lock():
                continue
            with subprocess.Popen(["prlimit", f"--memlock={limit}:{limit}", *user,
                                   postcopyd.program("postcopyd"), "--config", config],
                                  stderr=subprocess.PIPE, text=True) as daemon:
                try:
                    while "serving" not in daemon.stderr.readline():
                        expect(daemon.poll() is None, "the daemon ended")
                    both = _findings(_check(folder / "run/s", config))
                    found = both["rdma-memory"]
                finally:
                    daemon.terminate()
            expect(found["level"] == level, found)
            expect(both["memlock"]["level"] == ("warn" if user else "ok"), both["memlock"])
            mentions(found["text"], "pinned = 8.00 MiB", "" if level == "ok" else "may lock 1.00 MiB")
        return found["text"]


def check_without_daemon():
    """No daemon is a failure, and the rest is looked at all the same."""
    with Site() as site:
        found = _findings(_check(site.socket, site.config))
        expect(found["daemon"]["level"] == "fail" and "start postcopyd" in found["daemon"]["text"],
               found)
        found = _findings(_check(site.socket, site.config, run=site.folder))
        expect(found["monitors"]["level"] == "ok", found)
        site.config.write_text("[broken\n")
        found = _findings(_check(site.socket, site.config))
        expect(found["config"]["level"] == "fail", found)


def check_peer():
    """A peer is one only if it greets as a daemon does."""
    with World() as world:
        config = world.folder / "b.conf"

        def peer(address):
            return _findings(_check(world.destination.socket, config, "--peer", address))["peer"]

        good = peer(world.source.address)
        expect(good["level"] == "ok" and "postcopyd" in good["text"], good)
        expect(world.source.alive() and world.source.ctl("status").returncode == 0, "it is harmed")
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            strange = peer(f"127.0.0.1:{port}")
        expect(strange["level"] == "fail" and "not as postcopyd" in strange["text"], strange)
        gone = peer(f"[::ffff:127.0.0.1]:{port}")
        expect(gone["level"] == "fail" and "does not answer" in gone["text"], gone)
        for nonsense in ("", ":1", "[::1", "host:", "[::1]x", "a:b", "1.2.3.4:99999", "::1"):
            done = _check(world.destination.socket, config, "--peer", nonsense)
            expect(done.returncode == 2 and not done.stdout, f"{nonsense}: {done}")
            mentions(done.stderr, "no address", nonsense)
        expect("refused" not in world.source.log(), "its log complains of a check")


def jobs():
    """Both daemons name a migration that is under way, and no longer when it is over."""
    with World(destination={"import": {"vm_limit": "4M"}}) as world:
        for daemon in (world.source, world.destination):
            expect(json.loads(daemon.ctl("jobs", "--json").stdout) == [], "before")
            mentions(daemon.ctl("jobs").stdout, "no migrations")
        source, destination = world.vms("guest", mem=32, fill=32)
        world.move(source, destination)
        world.destination.wait_import("guest", lambda i: 0 < i["present_bytes"])
        leaving, = json.loads(world.source.ctl("jobs", "--json").stdout)
        arriving, = json.loads(world.destination.ctl("jobs", "--json").stdout)
        for job, direction in ((leaving, "out"), (arriving, "in")):
            expect((job["vm"], job["direction"], job["mode"]) == ("guest", direction, "direct"), job)
        expect(arriving["state"] == "running" and arriving["peer"] == world.source.address,
               arriving)
        expect(leaving["peer"] == world.destination.address, leaving)
        expect(0 < arriving["present_bytes"] < arriving["populated_bytes"] == 32 << 20, arriving)
        line = world.destination.ctl("jobs").stdout.splitlines()[1].split()
        expect(line[:4] == ["guest", "in", "direct", "running"], line)
        expect("direct" in world.destination.ctl("status").stdout, "status tells the mode")
        world.destination.ctl("limit", "guest", "none")
        destination.wait_event("released")
        source.wait_event("done")
        for daemon in (world.source, world.destination):
            daemon.wait("end of the job", lambda d=daemon: d.ctl("jobs", "--json").stdout == "[]\n")


def _ctl(*words):
    done = subprocess.run([postcopyd.program("postcopyctl"), *words], capture_output=True,
                          text=True, check=False, timeout=60)
    mentions(done.stdout + done.stderr)
    return done


def enable_and_disable():
    """What was done is said in a line, and so is what could not be done."""
    for command in ("enable", "disable"):
        done = _ctl(command, "--connect", TEST, "test")
        expect(done.returncode == 0 and done.stderr == "", done)
        mentions(done.stdout, "test:", f"{command}d", "at once", "next start")
        for words, status, said in (
                ((command, "-c", TEST, "nobody"), 1, ("no domain 'nobody'",)),
                ((command, "-c", "nonsense:///system", "test"), 1, ("cannot reach libvirt",)),
                ((command, "-c", TEST), 2, ("needs the name",)),
                ((command, "-c", TEST, "a", "b"), 2, ("'b'",)),
                ((command, "--nonsense", "test"), 2, ("nonsense",))):
            done = _ctl(*words)
            expect(done.returncode == status and done.stdout == "", f"{words}: {done}")
            mentions(done.stderr, "postcopyctl:", *said)
